/*
 * interval.h
 *		How long a client should wait until it polls again.
 */
#ifndef POLL_INTERVAL_H
#define POLL_INTERVAL_H

#include "feedset.h"

/* In seconds, as learned from when these feeds have changed. */
extern double poll_interval_hint(const PollFeedSet *set);

#endif							/* POLL_INTERVAL_H */
