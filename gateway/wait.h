/*
 * wait.h
 *		Clients that wait for news.
 */
#ifndef WAIT_H
#define WAIT_H

#include <stdint.h>

#include "request.h"

/* The statement for one request, and that for an array of them. */
#define POLL_STATEMENT	0
#define POLLS_STATEMENT	1

/*
 * Asks poll.respond() what the request's parameter says, and again when there may be
 * news; then comes server_answered().
 */
extern void wait_ask(Request *request);

/* To be called when all that has arrived was taken: they are asked for together. */
extern void wait_flush(void);

/* To be called several times a second. */
extern void wait_tick(void);

/* Answers the one that has waited for longest, to make room. */
extern void wait_end_first(void);

/* From now on nobody waits. */
extern void wait_stop(void);

/* How many wait now, and how often somebody was asked for again. */
extern int	wait_count(void);
extern uint64_t wait_asked_again(void);

#endif							/* WAIT_H */
