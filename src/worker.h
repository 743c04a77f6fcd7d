/*
 * worker.h
 *		The background worker that closes a burst of changes.
 */
#ifndef POLL_WORKER_H
#define POLL_WORKER_H

/* Called by _PG_init(). */
extern void poll_worker_install(void);

/* Before a transaction commits that has written to the log, and after it has. */
extern void poll_worker_note_flush(void);
extern void poll_worker_at_commit(void);

/* Starts it in this database, unless it is there or the server is a standby. */
extern void poll_worker_start(void);

#endif							/* POLL_WORKER_H */
