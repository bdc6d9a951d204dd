/* exp.c - the natural logarithm of exp.h.
 * In:   a float.      Out: a float.
 * Owns: nothing.
 * Why:  see exp.h; log-sum-exp values are compared and merged across ranks, so their bits count. */
#include "kernels/exp.h"

#include <string.h>

float dr_ln(float x) {
    if (!(x > 0)) return x == 0 ? -INFINITY : NAN;
    if (x == INFINITY) return x;
    double m = x; /* normal even where x is not */
    uint64_t bits;
    memcpy(&bits, &m, sizeof bits);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | (uint64_t)1023 << 52;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    /* ln m = 2 (s + s^3/3 + s^5/5 ...), s = (m-1)/(m+1) <= 0.172: the term s^17/17 is below 1e-14 */
    double s = (m - 1) / (m + 1), s2 = s * s;
    static const double term[] = {1.0 / 15, 1.0 / 13, 1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3, 1.0};
    double sum = 0;
    for (int i = 0; i < 8; i++) sum = sum * s2 + term[i];
    return (float)(2 * s * sum + e * 0.69314718055994531);
}
