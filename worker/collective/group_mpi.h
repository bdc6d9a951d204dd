/* group_mpi.h - the group over a communicator that exists already.
 * In:   the communicator.      Out: a group.
 * Owns: nothing.
 * Why:  a group over hosts is made of several communicators (group_create_mpi.c). */
#pragma once

#include "worker/collective/group.h"

#ifdef __cplusplus
extern "C" {
#endif

/* comm: MPI_Comm_c2f of a communicator whose ranks are the members in order and that returns errors; it stays
 * until MPI ends, for freeing it is collective. call_bytes 0: no sums; message_bytes 0: no sends. n = 1: comm
 * is not looked at. Fails: EFULL. */
DR_FALLIBLE dr_group_mpi_over(int comm, int32_t n, int32_t me, size_t call_bytes, size_t message_bytes,
                              struct dr_group **out);

#ifdef __cplusplus
}
#endif
