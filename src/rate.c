/*
 * rate.c
 *		Rate limits: the functions that check them.
 *
 * A check counts in shared memory and touches no table, so it works in READ
 * ONLY transactions and on standbys, and what was spent stays spent when the
 * transaction rolls back.  It costs as much as a few cache misses.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "error.h"
#include "rate.h"

#define MAX_CLIENT_LENGTH	1024

PG_FUNCTION_INFO_V1(poll_ext_rate_check);
PG_FUNCTION_INFO_V1(poll_ext_rate_peek);
PG_FUNCTION_INFO_V1(poll_ext_rate_reset);
PG_FUNCTION_INFO_V1(poll_ext_rate_counters);

static void
bad_request(const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_POLL_BAD_REQUEST),
			 errmsg_internal("%s", message)));
}

static void
no_client(const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_POLL_BAD_REQUEST),
			 errmsg_internal("%s", message),
			 errhint("Decide who a request without one is, such as coalesce(user, poll.client_network(address)).")));
}

/* The owner of a counter: a client at an endpoint. */
static PollRateOwner
make_owner(const PollPolicy *policy, const char *client, Size length)
{
	char		buffer[sizeof(PollRateEndpoint) + MAX_CLIENT_LENGTH];

	memcpy(buffer, &policy->endpoint, sizeof(PollRateEndpoint));
	memcpy(buffer + sizeof(PollRateEndpoint), client, length);
	return poll_ratetable_hash(buffer, sizeof(PollRateEndpoint) + length);
}

static void
check_client(Size length)
{
	if (length == 0)
		no_client("client must not be empty");
	if (length > MAX_CLIENT_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("client is too long"),
				 errdetail("It has %zu bytes; at most %d are allowed.", length, MAX_CLIENT_LENGTH)));
}

static void
check_cost(int32 cost, const PollPolicy *policy)
{
	if (cost < 1)
		bad_request("cost must be at least 1");
	if (policy != NULL && cost > policy->limit.burst)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("cost is more than a client can ever spend at once"),
				 errdetail("It is %d; the policy of endpoint \"%s\" allows %d.", cost,
						   NameStr(policy->name), policy->limit.burst)));
}

PollRate
poll_rate_check(const char *client, Size client_length, const char *endpoint,
				Size endpoint_length, int32 cost, bool peek)
{
	PollRate	rate;
	PollRateOwner owner;
	PollCounter counter;
	int64		now;

	poll_ratetable_require();
	check_client(client_length);
	rate.policy = poll_policy_find(endpoint, endpoint_length);
	check_cost(cost, rate.policy);
	if (rate.policy == NULL)
	{
		rate.allowed = true;
		return rate;
	}

	owner = make_owner(rate.policy, client, client_length);
	poll_ratetable_prefetch(&owner);
	now = poll_ratetable_now();
	if (peek)
		poll_ratetable_peek(&owner, &rate.policy->limit, &rate.policy->endpoint, now, &counter);
	else
		rate.allowed = poll_ratetable_take(&owner, &rate.policy->limit, &rate.policy->endpoint,
										   now, cost, &counter);
	rate.left = poll_limiter_left(&counter, &rate.policy->limit, now, cost);
	if (peek)
		rate.allowed = rate.left.retry_after == 0;
	else if (rate.allowed)
		rate.left.retry_after = 0;
	return rate;
}

static text *
client_arg(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		no_client("client must not be null");
	return PG_GETARG_TEXT_PP(0);
}

static text *
endpoint_arg(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		bad_request("endpoint must not be null");
	return PG_GETARG_TEXT_PP(1);
}

/*
 * The row type of the result.  To ask the catalog for it in each statement would
 * take longer than the check.
 */
static TupleDesc
result_desc(void)
{
	static TupleDesc blessed = NULL;

	if (blessed == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		TupleDesc	desc = CreateTemplateTupleDesc(5);

		TupleDescInitEntry(desc, 1, "allowed", BOOLOID, -1, 0);
		TupleDescInitEntry(desc, 2, "quota", INT4OID, -1, 0);
		TupleDescInitEntry(desc, 3, "remaining", INT4OID, -1, 0);
		TupleDescInitEntry(desc, 4, "retry_after", FLOAT8OID, -1, 0);
		TupleDescInitEntry(desc, 5, "reset_after", FLOAT8OID, -1, 0);
		blessed = BlessTupleDesc(desc);
		MemoryContextSwitchTo(old);
	}
	return blessed;
}

static Datum
rate_result(const PollRate *rate)
{
	Datum		values[5];
	bool		nulls[5] = {0};

	values[0] = BoolGetDatum(rate->allowed);
	if (rate->policy != NULL)
	{
		values[1] = Int32GetDatum(rate->policy->limit.quota);
		values[2] = Int32GetDatum(rate->left.remaining);
		values[3] = Float8GetDatum(rate->left.retry_after / 1e6);
		values[4] = Float8GetDatum(rate->left.reset_after / 1e6);
	}
	else
	{
		nulls[1] = nulls[2] = true;
		values[3] = values[4] = Float8GetDatum(0);
	}
	return HeapTupleGetDatum(heap_form_tuple(result_desc(), values, nulls));
}

static Datum
check(FunctionCallInfo fcinfo, bool peek)
{
	text	   *client = client_arg(fcinfo);
	text	   *endpoint = endpoint_arg(fcinfo);
	PollRate	rate;

	if (PG_ARGISNULL(2))
		bad_request("cost must not be null");
	rate = poll_rate_check(VARDATA_ANY(client), VARSIZE_ANY_EXHDR(client),
						   VARDATA_ANY(endpoint), VARSIZE_ANY_EXHDR(endpoint),
						   PG_GETARG_INT32(2), peek);
	return rate_result(&rate);
}

/*
 * poll.rate_check(client text, endpoint text, cost int) returns (allowed bool,
 * quota int, remaining int, retry_after float8, reset_after float8)
 */
Datum
poll_ext_rate_check(PG_FUNCTION_ARGS)
{
	return check(fcinfo, false);
}

/* poll.rate_peek(...), the same */
Datum
poll_ext_rate_peek(PG_FUNCTION_ARGS)
{
	return check(fcinfo, true);
}

/* poll.rate_reset(client text, endpoint text) returns bool */
Datum
poll_ext_rate_reset(PG_FUNCTION_ARGS)
{
	text	   *client = client_arg(fcinfo);
	text	   *endpoint = endpoint_arg(fcinfo);
	const PollPolicy *policy;
	PollRateOwner owner;

	poll_ratetable_require();
	check_client(VARSIZE_ANY_EXHDR(client));
	policy = poll_policy_find(VARDATA_ANY(endpoint), VARSIZE_ANY_EXHDR(endpoint));
	if (policy == NULL)
		PG_RETURN_BOOL(false);
	owner = make_owner(policy, VARDATA_ANY(client), VARSIZE_ANY_EXHDR(client));
	PG_RETURN_BOOL(poll_ratetable_forget(&owner, &policy->endpoint));
}

/*
 * poll.rate_counters() returns setof (endpoint text, entries bigint,
 * checks bigint, denials bigint, evictions bigint, overflows bigint): of this
 * database
 */
Datum
poll_ext_rate_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PollRateInfo *list;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	poll_ratetable_require();
	list = poll_ratetable_list(&n);
	poll_ratetable_count(list, n, poll_ratetable_now());
	for (int i = 0; i < n; i++)
	{
		Datum		values[6];
		bool		nulls[6] = {0};

		if (list[i].database != MyDatabaseId)
			continue;
		values[0] = CStringGetTextDatum(NameStr(list[i].name));
		values[1] = Int64GetDatum(list[i].entries);
		values[2] = Int64GetDatum(list[i].checks);
		values[3] = Int64GetDatum(list[i].denials);
		values[4] = Int64GetDatum(list[i].evictions);
		values[5] = Int64GetDatum(list[i].overflows);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
