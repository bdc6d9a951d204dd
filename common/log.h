/* log.h - one event, one line, on stderr.
 * In:   level, module, event and key=value pairs.      Out: text on a terminal, a JSON object a line
 * otherwise. Owns: the sink's settings (the only mutable file-scope state besides options). Why:  people read
 * terminals, collectors read JSON; nothing else in the project prints to stderr. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum dr_log_level { DR_LOG_DEBUG, DR_LOG_INFO, DR_LOG_WARN, DR_LOG_ERROR, DR_LOG_LEVEL_COUNT };
enum dr_log_format { DR_LOG_AUTO, DR_LOG_TEXT, DR_LOG_JSON };

#ifdef __cplusplus
extern "C" {
#endif

/* Once, at start. component: "gateway", "coordinator", "worker"; borrowed for the process's life. rank < 0:
 * none. */
void dr_log_init(enum dr_log_level least, enum dr_log_format format, const char *component, int rank);

/* event: a short fixed name ("rank_lost"); fmt gives "key=value key=\"two words\" ..." pairs or a sentence.
 * Thread-safe, one write(2) a line, at most 2,047 bytes; never logs prompt or output text. */
void dr_log(enum dr_log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __cplusplus
}
#endif
