/*
 * cached.c
 *		poll.cached(): the result of any query, computed once for many.
 *
 * If the feeds are known that a query reads from, its result is good as long as
 * nobody can have changed them; otherwise, and at most, for its time to live.  The
 * query runs as the caller, read-only, and so the result is that of the role: a
 * function with SECURITY DEFINER shares one between its callers.
 *
 * Where there are policies of row-level security, results are kept only if
 * poll_ext.cache_claims says on which settings they depend, as for polls (sharing.c).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "error.h"
#include "guc.h"
#include "sharing.h"
#include "snapshot.h"

#define MAX_TTL			(USECS_PER_DAY * 365)
#define STANDBY_MAX_AGE	(10 * USECS_PER_SEC)

/* Settings that a query's result may depend on, beside those of output. */
static const char *const settings[] = {
	"array_nulls", "default_text_search_config", "lc_numeric", "lc_time", "standard_conforming_strings",
	"transform_null_equals", "xmlbinary", "xmloption"
};

typedef struct Cached
{
	PollCacheUse use;
	const char *query;
	PollRequest *request;		/* of the feeds, or NULL */
} Cached;

PG_FUNCTION_INFO_V1(poll_ext_cached);

/* ---- the query ---- */

/* As the function of that name does it, which wants to know the type of its argument. */
static Jsonb *
value_to_jsonb(Datum value, Oid type)
{
	FmgrInfo	function;
	Const	   *argument = makeNullConst(type, -1, InvalidOid);

	fmgr_info(F_TO_JSONB, &function);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(argument), InvalidOid,
											 InvalidOid, COERCE_EXPLICIT_CALL), &function);
	return DatumGetJsonbP(FunctionCall1(&function, value));
}

/* The one value of the one row, as jsonb; NULL if there is none. */
static Jsonb *
only_value(MemoryContext context)
{
	Oid			type;
	Datum		value;
	bool		isnull;
	MemoryContext old;
	Jsonb	   *result;

	if (SPI_tuptable == NULL || SPI_tuptable->tupdesc->natts != 1 || SPI_processed > 1)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("the query must return one column, and at most one row"),
				 errhint("jsonb_agg() makes one value of many rows.")));
	if (SPI_processed == 0)
		return NULL;
	type = SPI_gettypeid(SPI_tuptable->tupdesc, 1);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return NULL;
	old = MemoryContextSwitchTo(context);
	result = value_to_jsonb(value, type);
	MemoryContextSwitchTo(old);
	return result;
}

/*
 * Is there any policy?  What a query depends on cannot be seen from outside if it calls
 * functions.
 */
static bool
has_policies(void)
{
	Relation	rel = table_open(PolicyRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	bool		result = HeapTupleIsValid(systable_getnext(scan));

	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* Runs it under the active snapshot; NULL: it returns none. */
static Jsonb *
run(const char *query)
{
	MemoryContext context = CurrentMemoryContext;
	SPIPlanPtr	plan;
	int			status;
	Jsonb	   *result;

	SPI_connect();
	plan = SPI_prepare(query, 0, NULL);
	if (plan == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the query is none"),
				 errdetail_internal("%s", SPI_result_code_string(SPI_result))));
	status = SPI_execute_plan(plan, NULL, NULL, true, 2);
	if (status < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the query is none that returns rows"),
				 errdetail_internal("%s", SPI_result_code_string(status))));
	result = only_value(context);
	SPI_finish();
	return result;
}

/* ---- the cache ---- */

/* A content is the position of the feeds, if there are any, the result's size, and the result. */
static bool
make(PollCacheUse *use, StringInfo content)
{
	Cached	   *self = (Cached *) use;
	Jsonb	   *result;
	int64		size;
	bool		keep = true;

	if (self->request != NULL)
	{
		PollRequest now = *self->request;
		PollCursor	position;

		poll_request_begin(&now);
		poll_request_position(&now, NULL, &position);
		/* a crash must not take back what is told */
		poll_snapshot_flush(now.snapshot);
		poll_request_end(&now);
		now.set = poll_feedset_get(&now.selection, GetActiveSnapshot());
		poll_position_append(content, &now, &position);
		keep = !position.cut;
	}
	keep &= poll_cache_claims[0] != '\0' || !has_policies();
	result = run(self->query);
	size = result ? VARSIZE(result) : 0;
	appendBinaryStringInfo(content, (const char *) &size, sizeof(size));
	if (result != NULL)
		appendBinaryStringInfo(content, (const char *) result, size);
	return keep;
}

static bool
is_good(PollCacheUse *use, const char *content, uint64 begun)
{
	Cached	   *self = (Cached *) use;

	return self->request == NULL || begun > use->arrival || poll_position_holds(content, self->request);
}

/* ---- the function ---- */

static int64
ttl_argument(FunctionCallInfo fcinfo, int argno)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now),
															  PG_GETARG_DATUM(argno)));

	if (end <= now || end - now > MAX_TTL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ttl must be positive, and a year at most")));
	return end - now;
}

/* NULL: the query has returned none. */
static Jsonb *
result_in(const Cached *self, const char *content)
{
	const char *src = self->request == NULL ? content : poll_position_end(content);
	int64		size;

	memcpy(&size, src, sizeof(size));
	return size == 0 ? NULL : memcpy(palloc(size), src + sizeof(size), size);
}

/* And whether names may mean temporary tables, which are this session's alone. */
static void
add_settings(StringInfo key)
{
	Oid			temp[2];

	for (int i = 0; i < lengthof(settings); i++)
	{
		const char *value = GetConfigOption(settings[i], false, false);

		appendBinaryStringInfo(key, value, strlen(value) + 1);
	}
	GetTempNamespaceState(&temp[0], &temp[1]);
	appendBinaryStringInfo(key, (const char *) &temp[0], sizeof(Oid));
	if (OidIsValid(temp[0]))
		appendBinaryStringInfo(key, (const char *) &MyProcPid, sizeof(MyProcPid));
}

/* False: it must not be shared. */
static bool
make_key(Cached *self, text *name)
{
	StringInfoData key;
	int32		length = VARSIZE_ANY_EXHDR(name);

	poll_cache_key_begin(&key, 'q');
	poll_cache_key_add_caller(&key);
	add_settings(&key);
	appendBinaryStringInfo(&key, (const char *) &length, sizeof(length));
	appendBinaryStringInfo(&key, VARDATA_ANY(name), length);
	appendBinaryStringInfo(&key, self->query, strlen(self->query) + 1);
	if (self->request != NULL && !poll_sharing_add_feeds(&key, self->request->set))
		return false;
	self->use.key = poll_cache_key_end(&key);
	return true;
}

/*
 * poll.cached(key text, ttl interval, query text, feeds text[], scope jsonb) returns
 * jsonb
 */
Datum
poll_ext_cached(PG_FUNCTION_ARGS)
{
	Cached		self = {.use = {.is_good = is_good,.make = make}};
	PollRequest request;
	Jsonb	   *result;

	for (int i = 0; i < 3; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("key, ttl and query must not be null")));
	self.use.max_age = ttl_argument(fcinfo, 1);
	/* who reads there does not hear of all that is changed */
	if (RecoveryInProgress())
		self.use.max_age = Min(self.use.max_age, STANDBY_MAX_AGE);
	self.query = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (!PG_ARGISNULL(3))
	{
		poll_request_init(&request, poll_arg_feeds(fcinfo, 3), poll_arg_scope(fcinfo, 4), NULL, NULL);
		request.start = POLL_START_NOW;
		self.request = &request;
	}
	if (poll_cache_usable() && make_key(&self, PG_GETARG_TEXT_PP(0)))
	{
		PollCached *cached = poll_cache_get(&self.use);

		result = result_in(&self, poll_cached_content(cached));
		poll_cached_free(cached);
	}
	else
		result = run(self.query);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}
