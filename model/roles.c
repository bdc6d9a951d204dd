/* roles.c - see roles.h.
 * In:   config, names.      Out: shapes, roles.
 * Owns: nothing.
 * Why:  see roles.h. */
#include "model/roles.h"

#include <stdio.h>
#include <string.h>

#define DR_X_(role, name) [DR_ROLE_##role] = name,
static const char *const names[DR_ROLE_COUNT] = {DR_ROLES(DR_X_)};
#undef DR_X_

static const char layers_prefix[] = "model.layers.", experts_prefix[] = "mlp.experts.";

enum dr_role_scope dr_role_scope(enum dr_role role) {
    switch (role) {
    case DR_ROLE_EMBED:
    case DR_ROLE_NORM:
    case DR_ROLE_HEAD:
        return DR_SCOPE_MODEL;
    case DR_ROLE_EXPERT_GATE:
    case DR_ROLE_EXPERT_UP:
    case DR_ROLE_EXPERT_DOWN:
        return DR_SCOPE_EXPERT;
    default:
        return DR_SCOPE_LAYER;
    }
}

enum dr_role_form dr_role_form(enum dr_role role) {
    switch (role) {
    case DR_ROLE_EMBED:
    case DR_ROLE_HEAD:
    case DR_ROLE_ROUTER:
        return DR_FORM_PLAIN;
    case DR_ROLE_NORM:
    case DR_ROLE_INPUT_NORM:
    case DR_ROLE_POST_NORM:
    case DR_ROLE_Q_A_NORM:
    case DR_ROLE_KV_A_NORM:
    case DR_ROLE_MTP_ENORM:
    case DR_ROLE_MTP_HNORM:
    case DR_ROLE_MTP_NORM:
        return DR_FORM_VECTOR;
    case DR_ROLE_ROUTER_BIAS:
        return DR_FORM_BIAS;
    default:
        return DR_FORM_LINEAR;
    }
}

bool dr_role_wanted(const struct dr_config *c, enum dr_role role, int32_t layer) {
    bool moe = dr_config_is_moe(c, layer);
    switch (role) {
    case DR_ROLE_HEAD:
        return !c->tied;
    case DR_ROLE_Q:
        return c->q_lora == 0;
    case DR_ROLE_Q_A:
    case DR_ROLE_Q_A_NORM:
    case DR_ROLE_Q_B:
        return c->q_lora > 0;
    case DR_ROLE_MLP_GATE:
    case DR_ROLE_MLP_UP:
    case DR_ROLE_MLP_DOWN:
        return !moe;
    case DR_ROLE_ROUTER_BIAS:
        return moe && c->router == DR_ROUTER_SIGMOID_NOAUX;
    case DR_ROLE_ROUTER:
    case DR_ROLE_EXPERT_GATE:
    case DR_ROLE_EXPERT_UP:
    case DR_ROLE_EXPERT_DOWN:
        return moe;
    case DR_ROLE_SHARED_GATE:
    case DR_ROLE_SHARED_UP:
    case DR_ROLE_SHARED_DOWN:
        return moe && c->n_shared > 0;
    case DR_ROLE_MTP_EH:
    case DR_ROLE_MTP_ENORM:
    case DR_ROLE_MTP_HNORM:
    case DR_ROLE_MTP_NORM:
        return layer >= c->n_layer;
    default:
        return true;
    }
}

struct shape {
    int32_t rows, cols;
};

static struct shape matrix(int32_t rows, int32_t cols) {
    return (struct shape){.rows = rows, .cols = cols};
}

static struct shape vector(int32_t n) {
    return matrix(1, n);
}

static struct shape shape_of(const struct dr_config *c, enum dr_role role) {
    const int32_t qk = dr_config_qk_dim(c), shared = dr_config_shared_dim(c);
    switch (role) {
    case DR_ROLE_EMBED:
    case DR_ROLE_HEAD:
        return matrix(c->vocab, c->dim);
    case DR_ROLE_Q:
        return matrix(c->n_head * qk, c->dim);
    case DR_ROLE_Q_A:
        return matrix(c->q_lora, c->dim);
    case DR_ROLE_Q_A_NORM:
        return vector(c->q_lora);
    case DR_ROLE_Q_B:
        return matrix(c->n_head * qk, c->q_lora);
    case DR_ROLE_KV_A:
        return matrix(dr_config_row_dim(c), c->dim);
    case DR_ROLE_KV_A_NORM:
        return vector(c->kv_lora);
    case DR_ROLE_KV_B:
        return matrix(c->n_head * (c->nope_dim + c->v_dim), c->kv_lora);
    case DR_ROLE_O:
        return matrix(c->dim, c->n_head * c->v_dim);
    case DR_ROLE_MLP_GATE:
    case DR_ROLE_MLP_UP:
        return matrix(c->mlp_dim, c->dim);
    case DR_ROLE_MLP_DOWN:
        return matrix(c->dim, c->mlp_dim);
    case DR_ROLE_ROUTER:
        return matrix(c->n_expert, c->dim);
    case DR_ROLE_ROUTER_BIAS:
        return vector(c->n_expert);
    case DR_ROLE_EXPERT_GATE:
    case DR_ROLE_EXPERT_UP:
        return matrix(c->expert_dim, c->dim);
    case DR_ROLE_EXPERT_DOWN:
        return matrix(c->dim, c->expert_dim);
    case DR_ROLE_SHARED_GATE:
    case DR_ROLE_SHARED_UP:
        return matrix(shared, c->dim);
    case DR_ROLE_SHARED_DOWN:
        return matrix(c->dim, shared);
    case DR_ROLE_MTP_EH:
        return matrix(c->dim, 2 * c->dim);
    default:
        return vector(c->dim); /* the norms of the residual stream */
    }
}

void dr_role_shape(const struct dr_config *c, enum dr_role role, int32_t *rows, int32_t *cols) {
    struct shape s = shape_of(c, role);
    *rows = s.rows;
    *cols = s.cols;
}

enum dr_dtype dr_role_usual_dtype(const struct dr_config *c, enum dr_role role) {
    if (role == DR_ROLE_ROUTER_BIAS) return DR_DTYPE_F32;
    bool linear = dr_role_form(role) == DR_FORM_LINEAR &&
                  role != DR_ROLE_MTP_EH; /* eh_proj stays BF16 in V3's FP8 release */
    return linear && c->fp8 ? DR_DTYPE_F8_E4M3 : DR_DTYPE_BF16;
}

int dr_tensors_name(enum dr_role role, int32_t layer, int32_t expert, char *out, size_t room) {
    switch (dr_role_scope(role)) {
    case DR_SCOPE_MODEL:
        return snprintf(out, room, "%s", names[role]);
    case DR_SCOPE_LAYER:
        return snprintf(out, room, "%s%d.%s", layers_prefix, layer, names[role]);
    case DR_SCOPE_EXPERT:
        break;
    }
    const char *tail = strchr(names[role], '%') + 2; /* behind "%d" */
    return snprintf(out, room, "%s%d.%s%d%s", layers_prefix, layer, experts_prefix, expert, tail);
}

/* A whole number without leading zeros, below 2^20; *at moves behind it. -1: none. */
static int32_t number(const char *s, size_t length, size_t *at) {
    size_t from = *at;
    int32_t n = 0;
    while (*at < length && s[*at] >= '0' && s[*at] <= '9') {
        if (n >= 1 << 16) return -1;
        n = n * 10 + (s[(*at)++] - '0');
    }
    return *at == from || (s[from] == '0' && *at > from + 1) ? -1 : n;
}

static bool equal(const char *s, size_t length, const char *whole) {
    return strlen(whole) == length && memcmp(s, whole, length) == 0;
}

static bool starts(const char *s, size_t length, const char *with) {
    size_t n = strlen(with);
    return length >= n && memcmp(s, with, n) == 0;
}

struct dr_role_name dr_role_parse(const char *name, size_t length) {
    struct dr_role_name r = {.known = false, .layer = -1, .expert = -1, .rest = name};
    for (int role = 0; role < DR_ROLE_COUNT; role++) {
        if (dr_role_scope(role) == DR_SCOPE_MODEL && equal(name, length, names[role])) {
            r.known = true;
            r.role = (enum dr_role)role;
            return r;
        }
    }
    if (!starts(name, length, layers_prefix)) return r;
    size_t at = sizeof layers_prefix - 1;
    int32_t layer = number(name, length, &at);
    if (layer < 0 || at >= length || name[at] != '.') return r;
    at++;
    r.layer = layer;
    r.rest = name + at;
    const char *rest = name + at;
    size_t left = length - at;
    bool expert = starts(rest, left, experts_prefix);
    if (expert) {
        size_t skip = sizeof experts_prefix - 1;
        r.expert = number(rest, left, &skip);
        if (r.expert < 0) return r;
        rest += skip;
        left -= skip;
    }
    for (int role = 0; role < DR_ROLE_COUNT; role++) {
        if (dr_role_scope(role) != (expert ? DR_SCOPE_EXPERT : DR_SCOPE_LAYER)) continue;
        if (!equal(rest, left, expert ? strchr(names[role], '%') + 2 : names[role])) continue;
        r.known = true;
        r.role = (enum dr_role)role;
        break;
    }
    return r;
}
