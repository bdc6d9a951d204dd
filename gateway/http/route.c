/* route.c - the table of endpoints.
 * In:   method, path.      Out: a route.
 * Owns: nothing.
 * Why:  see route.h. */
#include "gateway/http/route.h"

#include <string.h>

static const struct {
    const char *methods, *path;
    bool open, slow;
} routes[] = {
#define DR_X_(id, m, p, o, s) [DR_ROUTE_##id] = {.methods = (m), .path = (p), .open = (o), .slow = (s)},
    DR_ROUTES(DR_X_)
#undef DR_X_
};

enum dr_route dr_route_find(const char *method, const char *path, bool *method_fits) {
    *method_fits = false;
    for (int r = 0; r < DR_ROUTE_NONE; r++) {
        size_t n = strlen(routes[r].path);
        bool rest = r == DR_ROUTE_MODEL && strncmp(path, routes[r].path, n) == 0 && path[n];
        if (!rest && (r == DR_ROUTE_MODEL || strcmp(path, routes[r].path) != 0)) continue;
        *method_fits =
            strcmp(routes[r].methods, method) == 0 ||
            (routes[r].methods[0] == 'G' && (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0));
        return (enum dr_route)r;
    }
    return DR_ROUTE_NONE;
}

const char *dr_route_methods(enum dr_route route) {
    return routes[route].methods;
}

const char *dr_route_path(enum dr_route route) {
    return route == DR_ROUTE_NONE ? "none" : routes[route].path;
}

bool dr_route_is_open(enum dr_route route) {
    return route != DR_ROUTE_NONE && routes[route].open;
}

bool dr_route_is_slow(enum dr_route route) {
    return route != DR_ROUTE_NONE && routes[route].slow;
}

bool dr_route_generates(enum dr_route route) {
    return route == DR_ROUTE_CHAT || route == DR_ROUTE_COMPLETIONS;
}

static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool dr_route_decode(const char *text, char *out, size_t bytes) {
    size_t n = 0;
    for (; *text; text++) {
        char c = *text;
        if (c == '%') {
            int high = digit(text[1]), low = high < 0 ? -1 : digit(text[2]);
            if (low < 0) return false;
            c = (char)(16 * high + low);
            text += 2;
        }
        if (c == 0 || n + 1 >= bytes) return false;
        out[n++] = c;
    }
    out[n] = 0;
    return true;
}
