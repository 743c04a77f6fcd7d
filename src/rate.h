/*
 * rate.h
 *		Rate limits, for whoever answers a request.
 */
#ifndef POLL_RATE_H
#define POLL_RATE_H

#include "policy.h"

typedef struct PollRate
{
	bool		allowed;
	const PollPolicy *policy;	/* NULL: there is none, and no limit; good
								 * until the next check */
	PollQuotaLeft left;			/* of the policy */
} PollRate;

/*
 * May the client spend that much at the endpoint?  If so, it has, unless this
 * is only a peek.  Errors: PT400, 55000 without shared memory, 53400
 * too many policies.
 */
extern PollRate poll_rate_check(const char *client, Size client_length, const char *endpoint,
								Size endpoint_length, int32 cost, bool peek);

#endif							/* POLL_RATE_H */
