/*
 * wait.h
 *		Until there is something to poll.
 */
#ifndef POLL_WAIT_H
#define POLL_WAIT_H

#include "utils/array.h"
#include "utils/jsonb.h"

/* May this transaction wait?  Not if it has written, or would see nothing new. */
extern bool poll_wait_possible(void);

/*
 * Waits, for so many ms at most, until a poll would have anything to say; false if it
 * has not.  scope: or NULL.  Errors: as a poll.
 */
extern bool poll_wait(ArrayType *feeds, Jsonb *scope, text *cursor, long timeout);

/* Sleeps until the latch is set, or for so long; errors if the client has gone. */
extern void poll_wait_sleep(long ms);

#endif							/* POLL_WAIT_H */
