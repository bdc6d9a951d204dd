/* host.c - see host.h.
 * In:   /proc.      Out: numbers.
 * Owns: nothing.
 * Why:  see host.h. */

#include "worker/host.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

void dr_host_name(char *out, size_t room) {
    if (gethostname(out, room) != 0) (void)snprintf(out, room, "unknown");
    out[room - 1] = '\0';
}

uint64_t dr_host_free_bytes(void) {
    FILE *f = fopen("/proc/meminfo", "r");
    char line[128];
    uint64_t kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1) break;
    if (f) (void)fclose(f);
    return kib * 1024;
}

uint64_t dr_host_resident_bytes(void) {
    FILE *f = fopen("/proc/self/statm", "r");
    uint64_t total = 0, resident = 0;
    long page = sysconf(_SC_PAGESIZE);
    if (f && fscanf(f, "%" SCNu64 " %" SCNu64, &total, &resident) != 2) resident = 0;
    if (f) (void)fclose(f);
    return page > 0 ? resident * (uint64_t)page : 0;
}
