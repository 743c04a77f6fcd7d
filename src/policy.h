/*
 * policy.h
 *		Rate policies: how much a client may do at which endpoint.
 */
#ifndef POLL_POLICY_H
#define POLL_POLICY_H

#include "limiter.h"
#include "ratetable.h"

/* The policy of endpoints that have none of their own. */
#define POLL_POLICY_DEFAULT		"default"

typedef struct PollPolicy
{
	NameData	name;			/* hash key: the endpoint */
	PollLimit	limit;
	bool		known;			/* is this set? */
	PollRateEndpoint endpoint;
} PollPolicy;

/*
 * The policy of an endpoint, or the default one, or NULL; good until the next
 * call.  Needs the rate table.
 */
extern const PollPolicy *poll_policy_find(const char *endpoint, Size length);

/* Called by the relcache callback. */
extern void poll_policy_invalidate(Oid relid);

#endif							/* POLL_POLICY_H */
