/* log.c - formats and writes log lines.
 * In:   events.      Out: lines on file descriptor 2.
 * Owns: level, format, component and rank of this process.
 * Why:  see log.h. */
#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 2048 };

static struct {
    enum dr_log_level least;
    bool json;
    const char *component;
    int rank;
} sink = {DR_LOG_INFO, false, "deeprack", -1};

static const char *const level_names[DR_LOG_LEVEL_COUNT] = {"DEBUG", "INFO", "WARN", "ERROR"};

void dr_log_init(enum dr_log_level least, enum dr_log_format format, const char *component, int rank) {
    sink.least = least;
    sink.json = format == DR_LOG_JSON || (format == DR_LOG_AUTO && !isatty(2));
    sink.component = component;
    sink.rank = rank;
}

/* Copies s into a JSON string body; bytes outside printable ASCII become \u00XX so that the line stays valid.
 */
static int escape(char *out, int room, const char *s) {
    int n = 0;
    for (; *s && n + 7 < room; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            out[n++] = '\\';
            out[n++] = (char)c;
        } else if (c >= 0x20 && c < 0x7f) {
            out[n++] = (char)c;
        } else {
            n += snprintf(out + n, (size_t)(room - n), "\\u%04x", c);
        }
    }
    out[n] = 0;
    return n;
}

void dr_log(enum dr_log_level level, const char *event, const char *fmt, ...) {
    if (level < sink.least) return;
    char words[1024], line[LINE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(words, sizeof words, fmt, args);
    va_end(args);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm day;
    gmtime_r(&now.tv_sec, &day);
    int ms = (int)(now.tv_nsec / 1000000), n = 0;
    const int room = LINE_BYTES - 4;
    if (sink.json) {
        char stamp[32];
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &day);
        n = snprintf(line, (size_t)room, "{\"ts\":\"%s.%03dZ\",\"level\":\"%s\",\"comp\":\"%s\",", stamp, ms,
                     level_names[level], sink.component);
        if (sink.rank >= 0) n += snprintf(line + n, (size_t)(room - n), "\"rank\":%d,", sink.rank);
        n += snprintf(line + n, (size_t)(room - n), "\"event\":\"%s\",\"msg\":\"", event);
        n += escape(line + n, room - n, words);
        n += snprintf(line + n, sizeof line - (size_t)n, "\"}\n");
    } else {
        n = snprintf(line, (size_t)room, "%02d:%02d:%02d.%03d %-5s %s", day.tm_hour, day.tm_min, day.tm_sec,
                     ms, level_names[level], sink.component);
        if (sink.rank >= 0) n += snprintf(line + n, (size_t)(room - n), " rank=%d", sink.rank);
        n += snprintf(line + n, (size_t)(room - n), " %s %s", event, words);
        if (n > room) n = room;
        line[n++] = '\n';
    }
    ssize_t wrote = write(2, line, (size_t)n);
    (void)wrote; /* nowhere left to report it */
}
