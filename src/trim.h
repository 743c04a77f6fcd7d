/*
 * trim.h
 *		Retention: the steps of the change log's segments, by the worker or by hand.
 */
#ifndef POLL_TRIM_H
#define POLL_TRIM_H

/*
 * Takes each segment a step on, in the worker's transaction, and logs what
 * somebody may want to know.  Returns whether anything was done.
 */
extern bool poll_trim_step(void);

#endif							/* POLL_TRIM_H */
