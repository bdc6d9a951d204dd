/* header.h - limits of a safetensors header.
 * In:   nothing.      Out: constants.
 * Owns: nothing.
 * Why:  the reader of files and the parser of headers refuse by the same numbers. */
#pragma once

enum {
    DR_HEADER_LENGTH_BYTES = 8, /* little-endian u64 in front of the header */
    DR_HEADER_BYTES_MIN = 2,    /* {} */
    DR_HEADER_BYTES_MAX =
        16 << 20, /* V3's largest header is below 120 KB; the format's own limit is 100 MB */
};
