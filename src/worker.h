/*
 * worker.h
 *		The background worker that closes a burst of changes.
 */
#ifndef POLL_WORKER_H
#define POLL_WORKER_H

#include "datatype/timestamp.h"

#include "shmem.h"

/* Starts it in this database, unless it is there. */
extern void poll_worker_start(PollDatabase *database, TimestampTz now);

#endif							/* POLL_WORKER_H */
