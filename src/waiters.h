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

/* ---- signals ---- */

/*
 * What is said to a process that waits for many (suspend.c): each channel has one of
 * these signals, which is counted up by each commit to it, once that is visible.  A
 * count of another moment is another number.
 */
#define POLL_SIGNALS	262144

extern bool poll_signals_available(void);
extern int	poll_signal_of(int64 channel);
extern uint64 poll_signal_count(int signal);

/* Counts one up, and wakes who waits for it. */
extern void poll_signal_send(int signal);

/* ---- waiting ---- */

/* Takes a place; false: there is none, or no shared memory. */
extern bool poll_waiters_begin(void);
extern void poll_waiters_end(void);

/* For what it waits, beside what was said before. */
extern void poll_waiters_add(int64 channel);
extern void poll_waiters_add_signal(int signal);

/*
 * From here on, a commit that writes to one of the channels sets this process's
 * latch, once.
 */
extern void poll_waiters_arm(void);

#endif							/* POLL_WAITERS_H */
