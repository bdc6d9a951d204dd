/* host.h - what a rank tells about the machine that it is on.
 * In:   the kernel's files.      Out: name, free memory, resident bytes.
 * Owns: nothing.
 * Why:  hello and ready carry these; 0 where the system does not say. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void dr_host_name(char *out, size_t room);
uint64_t dr_host_free_bytes(void);
uint64_t dr_host_resident_bytes(void); /* of this process */

#ifdef __cplusplus
}
#endif
