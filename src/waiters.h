/*
 * waiters.h
 *		Sessions that wait for changes, and the writers that wake them.
 */
#ifndef POLL_WAITERS_H
#define POLL_WAITERS_H

extern void poll_waiters_shmem_request(void);
extern void poll_waiters_shmem_init(void);

/* ---- writers: none of these may fail ---- */

/* This transaction has written to the channel. */
extern void poll_waiters_note(int64 channel);

/* It has committed: wakes who waits for one of its channels; or it has not. */
extern void poll_waiters_wake(void);
extern void poll_waiters_forget(void);

/* What was prepared has committed: wakes all in this database. */
extern void poll_waiters_wake_all(void);

/* ---- waiting ---- */

/* Takes a place; false: there is none, or no shared memory. */
extern bool poll_waiters_begin(void);
extern void poll_waiters_end(void);

/* For what it waits, beside what was said before. */
extern void poll_waiters_add(int64 channel);

/*
 * From here on, a commit that writes to one of the channels sets this process's
 * latch, once.
 */
extern void poll_waiters_arm(void);

#endif							/* POLL_WAITERS_H */
