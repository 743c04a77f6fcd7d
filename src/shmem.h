/*
 * shmem.h
 *		The parts of shared memory that every transaction touches.
 */
#ifndef POLL_SHMEM_H
#define POLL_SHMEM_H

#include "datatype/timestamp.h"
#include "port/atomics.h"

/* What is known of a database; times are TimestampTz, 0 = none. */
typedef struct PollDatabase
{
	pg_atomic_uint32 oid;		/* 0 = the entry is free */
	bool		shared;			/* false: this backend's own */
	pg_atomic_uint64 floor;		/* see poll_flushed_read() */
	pg_atomic_uint64 flushed;	/* the last flush, or commit of one, about */
	pg_atomic_uint64 ticked;	/* the last tick of a writer */
	pg_atomic_uint64 tick_x;	/* the highest x of a tick */
	pg_atomic_uint64 worker;	/* its last sign of life */
	pg_atomic_uint64 complained;	/* that the log cannot be trimmed */
} PollDatabase;

/* Called by _PG_init(); reserves the memory if that is still possible. */
extern void poll_shmem_install(void);

/*
 * Takes count (> 0) versions from the hybrid clock and returns the first:
 * microseconds since 1970, strictly increasing over the whole server.
 */
extern int64 poll_clock_take(int64 count);

/* A version as a time. */
extern TimestampTz poll_clock_timestamp(int64 version);

/* Sees to it that later versions are after that time. */
extern void poll_clock_raise(TimestampTz time);

/* The entry of this backend's database. */
extern PollDatabase *poll_shmem_database(void);

/* Is it time to complain again, in this database, that the log cannot be trimmed? */
extern bool poll_shmem_complain(void);

/* A hash of the channel of this backend's database. */
extern uint32 poll_shmem_hash(int64 channel);

/*
 * The highest transaction id that may have flushed entries of this channel,
 * PG_UINT64_MAX when nothing is known.  raise must come before the flush.
 */
extern uint64 poll_flushed_read(int64 channel);
extern void poll_flushed_raise(int64 channel, uint64 xid);

/*
 * Transactions that wrote to the log and commit asynchronously: the highest
 * that did (raise must come before the commit), and the highest up to which
 * all are known to be durable.  PG_UINT64_MAX and 0 when nothing is known.
 */
extern uint64 poll_async_read(void);
extern void poll_async_raise(uint64 xid);
extern uint64 poll_async_durable_read(void);
extern void poll_async_durable_raise(uint64 xid);

#endif							/* POLL_SHMEM_H */
