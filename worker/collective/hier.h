/* hier.h - a group whose members lie on several hosts, some of them with several members.
 * In:   groups over subsets of the members.      Out: one group.
 * Owns: the inner groups and a staging buffer.
 * Why:  a link between hosts carries each sum once, not once for every pair of ranks. */
#pragma once

#include "worker/collective/group.h"

struct dr_hier_spec {
    int32_t n, me;
    const int32_t *host; /* [n] host of each member, 0, 1, ... without holes, never descending */
    size_t stage_bytes;  /* equal on all members */
    /* taken over, also when create fails: */
    struct dr_group *local; /* the members of this host in member order; NULL: one member */
    struct dr_group
        *across;          /* the members with this one's number in their hosts, in host order; NULL: not every
                             host has one with that number. Its messages hold dr_hier_message_bytes */
    struct dr_group *all; /* all members: what gains nothing by hosts */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Least message_bytes of `across`. */
size_t dr_hier_message_bytes(size_t stage_bytes);

DR_FALLIBLE dr_group_hier_create(const struct dr_hier_spec *spec, struct dr_group **out);

#ifdef __cplusplus
}
#endif
