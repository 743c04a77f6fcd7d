/*
 * policy.c
 *		Rate policies: how much a client may do at which endpoint.
 *
 * They are rows of poll.rate_policy.  Each backend keeps a copy, and every
 * write to the table makes all copies stale by way of a relcache invalidation
 * (catalog.c does the same with feeds).  So a policy is in force everywhere as
 * soon as it is committed, on standbys as soon as that is replayed, whatever
 * snapshot a transaction has, and not at all if it is rolled back.
 *
 * What is shared is the endpoint in the rate table: found when a policy is used
 * for the first time, and again if that says that it was given up.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "policy.h"
#include "track.h"

#define ANUM_POLICY_ENDPOINT	1
#define ANUM_POLICY_QUOTA		2
#define ANUM_POLICY_PER			3
#define ANUM_POLICY_ALGORITHM	4
#define ANUM_POLICY_BURST		5

static const char *const algorithm_names[] = {
	[POLL_ALGORITHM_WINDOW] = "window",
	[POLL_ALGORITHM_STRICT] = "strict",
	[POLL_ALGORITHM_GCRA] = "gcra",
};

static bool policies_stale = true;
static bool policies_reviewed = true;	/* see release_dead() */
static Oid	policies_relid = InvalidOid;
static MemoryContext policies_context = NULL;
static HTAB *policies = NULL;

PG_FUNCTION_INFO_V1(poll_ext_set_rate_policy);
PG_FUNCTION_INFO_V1(poll_ext_drop_rate_policy);

/* ---- what a policy may say ---- */

static void
check_endpoint(const char *name)
{
	Size		length = strlen(name);

	bool		valid = length > 0 && length < NAMEDATALEN;

	/* what a structured field of HTTP may have in quotes */
	for (Size i = 0; i < length; i++)
		valid &= name[i] >= ' ' && name[i] <= '~' && name[i] != '"' && name[i] != '\\';
	if (!valid)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("\"%s\" is not a name for an endpoint", name),
				 errdetail("It must have 1 to %d printable ASCII characters, without \" and \\.",
						   NAMEDATALEN - 1)));
}

static void
check_amount(int32 amount, const char *argument)
{
	if (amount < 1 || amount > POLL_LIMITER_MAX_QUOTA)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be 1 to %d, not %d", argument, POLL_LIMITER_MAX_QUOTA, amount)));
}

static int32
interval_ms(const Interval *interval)
{
	int64		ms = interval->time / 1000;

	if (interval->month != 0 || interval->day < 0 || interval->day > 1 ||
		interval->time < 0 || interval->time > USECS_PER_DAY ||
		interval->time % 1000 != 0 ||
		(ms += interval->day * INT64CONST(86400000)) < 1 || ms > POLL_LIMITER_MAX_INTERVAL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("per must be an interval from 1 millisecond to 1 day, in whole milliseconds, not \"%s\"",
						DatumGetCString(DirectFunctionCall1(interval_out,
															IntervalPGetDatum(interval))))));
	return ms;
}

static PollAlgorithm
find_algorithm(const char *name)
{
	for (int i = 0; i < lengthof(algorithm_names); i++)
		if (strcmp(name, algorithm_names[i]) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown algorithm \"%s\"", name),
			 errhint("The algorithms are \"window\", \"strict\" and \"gcra\".")));
}

/* burst: NULL for none given */
static PollLimit
make_limit(int32 quota, const Interval *per, const char *algorithm, const int32 *burst)
{
	PollLimit	limit;

	check_amount(quota, "quota");
	limit.quota = quota;
	limit.interval = interval_ms(per);
	limit.algorithm = find_algorithm(algorithm);
	limit.burst = burst != NULL ? *burst : quota;
	check_amount(limit.burst, "burst");
	if (burst != NULL && limit.algorithm != POLL_ALGORITHM_GCRA)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("burst is for the algorithm \"gcra\" only"),
				 errdetail("With \"%s\", all of the quota may be spent at once.", algorithm)));
	return limit;
}

/* ---- the copy ---- */

static PollLimit
read_limit(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	bool		no_burst;
	int32		quota = DatumGetInt32(heap_getattr(tuple, ANUM_POLICY_QUOTA, desc, &isnull));
	Interval   *per = DatumGetIntervalP(heap_getattr(tuple, ANUM_POLICY_PER, desc, &isnull));
	Datum		algorithm = heap_getattr(tuple, ANUM_POLICY_ALGORITHM, desc, &isnull);
	int32		burst = DatumGetInt32(heap_getattr(tuple, ANUM_POLICY_BURST, desc, &no_burst));

	return make_limit(quota, per, TextDatumGetCString(algorithm), no_burst ? NULL : &burst);
}

static HTAB *
read_policies(MemoryContext context)
{
	HASHCTL		ctl;
	HTAB	   *result;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	ctl.hcxt = context;
	ctl.keysize = sizeof(NameData);
	ctl.entrysize = sizeof(PollPolicy);
	result = hash_create("poll_ext rate policies", 16, &ctl,
						 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);

	policies_relid = poll_catalog_rate_policy();
	/* opening the table handles the invalidations that came before */
	rel = table_open(policies_relid, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;
		NameData	name;
		PollPolicy *policy;

		namestrcpy(&name, TextDatumGetCString(heap_getattr(tuple, ANUM_POLICY_ENDPOINT,
														   desc, &isnull)));
		policy = hash_search(result, &name, HASH_ENTER, NULL);
		policy->limit = read_limit(tuple, desc);
		policy->known = false;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

static void
load(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "poll_ext rate policies",
												  ALLOCSET_SMALL_SIZES);

	/* what changes while we read makes it stale again, for the next use */
	policies_stale = false;
	PG_TRY();
	{
		HTAB	   *new = read_policies(context);

		if (policies_context != NULL)
			MemoryContextDelete(policies_context);
		policies_context = context;
		policies = new;
	}
	PG_CATCH();
	{
		policies_stale = true;
		MemoryContextDelete(context);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * The policy in force at an endpoint, or NULL.  Most calls are about the same
 * endpoint as the one before.
 */
static PollPolicy *
find(const char *endpoint, Size length)
{
	static char last_name[NAMEDATALEN];
	static Size last_length;
	static PollPolicy *last = NULL;

	/* what others commit is in force in the middle of a transaction, too */
	AcceptInvalidationMessages();
	if (policies_stale)
	{
		last_length = NAMEDATALEN;
		load();
		policies_reviewed = false;
	}
	if (length >= NAMEDATALEN)
		return hash_search(policies, POLL_POLICY_DEFAULT, HASH_FIND, NULL);
	if (length != last_length || memcmp(endpoint, last_name, length) != 0)
	{
		memcpy(last_name, endpoint, length);
		last_name[length] = '\0';
		last_length = length;
		last = hash_search(policies, last_name, HASH_FIND, NULL);
		if (last == NULL)
			last = hash_search(policies, POLL_POLICY_DEFAULT, HASH_FIND, NULL);
	}
	return last;
}

void
poll_policy_invalidate(Oid relid)
{
	if (!OidIsValid(relid) || relid == policies_relid)
		policies_stale = true;
}

/* ---- the endpoint in shared memory ---- */

/*
 * Of an endpoint of the rate table: is it there for nothing?  full: there is no
 * room for others, and then also if nobody has used it for so long that all of
 * its counters are forgotten.
 */
static bool
is_dead(const PollRateInfo *info, bool full)
{
	PollPolicy *policy;

	if (full && poll_ratetable_now() - info->used > 2 * (int64) info->limit.interval * 1000)
		return true;
	if (info->database != MyDatabaseId)
		return false;
	policy = hash_search(policies, NameStr(info->name), HASH_FIND, NULL);
	return policy == NULL || policy->limit.algorithm != info->limit.algorithm ||
		policy->limit.interval != info->limit.interval;
}

/*
 * Gives up dead endpoints: what they remember would take room from clients of
 * others.  Not in a transaction that may have changed policies, which may be
 * rolled back; and if somebody else has changed them just now, next time.
 */
static void
release_dead(bool full)
{
	int			n;
	int			ndead = 0;
	PollRateInfo *list;
	PollRateEndpoint *dead;

	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return;
	list = poll_ratetable_list(&n);
	dead = palloc(n * sizeof(PollRateEndpoint));
	for (int i = 0; i < n; i++)
		if (is_dead(&list[i], full))
			dead[ndead++] = list[i].endpoint;
	AcceptInvalidationMessages();
	if (!policies_stale)
	{
		poll_ratetable_release(dead, ndead);
		policies_reviewed = true;
	}
	pfree(dead);
	pfree(list);
}

/* Finds, or makes, the endpoint. */
static void
make_known(PollPolicy *policy)
{
	const char *name = NameStr(policy->name);

	if (!poll_ratetable_endpoint(name, &policy->limit, &policy->endpoint))
	{
		release_dead(true);
		if (!poll_ratetable_endpoint(name, &policy->limit, &policy->endpoint))
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("too many rate policies"),
					 errdetail("The databases of a server can have %d together.",
							   POLL_RATETABLE_MAX_ENDPOINTS)));
	}
	policy->known = true;
}

const PollPolicy *
poll_policy_find(const char *endpoint, Size length)
{
	PollPolicy *policy = find(endpoint, length);

	if (!policies_reviewed)
	{
		release_dead(false);
		policy = find(endpoint, length);
	}
	if (policy != NULL && !(policy->known && poll_ratetable_endpoint_valid(&policy->endpoint)))
		make_known(policy);
	return policy;
}

/* ---- functions ---- */

static char *
text_arg(FunctionCallInfo fcinfo, int argno, const char *argument)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", argument)));
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/*
 * poll.set_rate_policy(endpoint text, quota int, per interval, algorithm text,
 * burst int)
 */
Datum
poll_ext_set_rate_policy(PG_FUNCTION_ARGS)
{
	Oid			types[5] = {TEXTOID, INT4OID, INTERVALOID, TEXTOID, INT4OID};
	Datum		values[5];
	char		nulls[6] = "     ";
	int32		burst = PG_ARGISNULL(4) ? 0 : PG_GETARG_INT32(4);

	check_endpoint(text_arg(fcinfo, 0, "endpoint"));
	for (int i = 1; i <= 3; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", i == 1 ? "quota" : i == 2 ? "per" : "algorithm")));
	(void) make_limit(PG_GETARG_INT32(1), PG_GETARG_INTERVAL_P(2),
					  text_to_cstring(PG_GETARG_TEXT_PP(3)), PG_ARGISNULL(4) ? NULL : &burst);
	for (int i = 0; i < 5; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}

	SPI_connect();
	poll_run_as_owner("INSERT INTO poll.rate_policy (endpoint, quota, per, algorithm, burst)"
					  " VALUES ($1, $2, $3, $4, $5)"
					  " ON CONFLICT (endpoint) DO UPDATE SET quota = excluded.quota, per = excluded.per,"
					  " algorithm = excluded.algorithm, burst = excluded.burst",
					  5, types, values, nulls);
	SPI_finish();
	PG_RETURN_VOID();
}

/* poll.drop_rate_policy(endpoint text) */
Datum
poll_ext_drop_rate_policy(PG_FUNCTION_ARGS)
{
	Oid			types[1] = {TEXTOID};
	char	   *name = text_arg(fcinfo, 0, "endpoint");
	Datum		values[1] = {PG_GETARG_DATUM(0)};
	uint64		found;

	SPI_connect();
	poll_run_as_owner("DELETE FROM poll.rate_policy WHERE endpoint OPERATOR(pg_catalog.=) $1",
					  1, types, values, NULL);
	found = SPI_processed;
	SPI_finish();
	if (found == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no rate policy for endpoint \"%s\"", name)));
	PG_RETURN_VOID();
}
