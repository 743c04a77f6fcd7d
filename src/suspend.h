/*
 * suspend.h
 *		One session that waits for all clients of a gateway.
 */
#ifndef POLL_SUSPEND_H
#define POLL_SUSPEND_H

#include "request.h"

/*
 * What to wait for until the request has anything to say: its signals, as text; NULL if
 * there is something already, or it cannot be told.
 */
extern text *poll_suspend(const PollSelection *selection, text *cursor);

#define POLL_SUSPEND_MAX_MS	(60 * 1000)

/* Until one of these signals was sent, or so many ms are over: those that were. */
extern text *poll_suspend_wait(const char *signals, long timeout);

/* Sends one. */
extern void poll_suspend_wake(int signal);

#endif							/* POLL_SUSPEND_H */
