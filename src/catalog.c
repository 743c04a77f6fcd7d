/*
 * catalog.c
 *		The extension's own tables and the registry of feeds, cached.
 *
 * An empty poll must not read a table, so each backend keeps the registry in
 * memory.  Every write to poll.feed, a restore's included, fires the trigger
 * poll.invalidate(), which sends a relcache invalidation for the table;
 * that marks the copy stale, and the next use reads it again.  Callers get
 * copies, since any use may replace it.
 *
 * The registry is what the last commit left, not what the caller's snapshot
 * shows: a trigger must know its feed under any snapshot.  Readers compare a
 * feed's xmin with their snapshot (feedset.c).
 *
 * The epoch says which log a cursor belongs to.  It hashes a random number
 * from CREATE EXTENSION (not dumped: a restored database starts a new one),
 * the database (not the same in a copy), the cluster and the timeline (new
 * after a promotion or a point-in-time recovery, see timeline.c).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "catalog.h"
#include "error.h"

#define ANUM_FEED_ID		1
#define ANUM_FEED_NAME		2
#define ANUM_FEED_RELATION	3
#define ANUM_FEED_COLUMNS	4
#define ANUM_FEED_SCOPE		5
#define ANUM_FEED_ALWAYS	6
#define ANUM_FEED_EXPOSE	7
#define ANUM_FEED_TRACKED	8
#define ANUM_EPOCH_VALUE	1
#define ANUM_EPOCH_CREATED	2
#define ANUM_EPOCH_SECRET	3

/* The oids of our relations; all or none. */
typedef struct PollRelations
{
	bool		valid;
	Oid			change[POLL_SEGMENTS];
	Oid			change_index[POLL_SEGMENTS];
	Oid			segment;
	Oid			feed;
	Oid			epoch;
	Oid			tick;
	Oid			tick_index;
	uint64		epoch_value;	/* without the timeline */
	TimestampTz created_at;		/* the epoch, that is, the log */
	pg_uuid_t	secret;			/* for the channels of scopes */
	Oid			shape;
	Oid			rate_policy;
} PollRelations;

typedef struct PollRegistryFeed
{
	PollFeed	feed;			/* begins with the hash key */
	ArrayType  *columns;		/* of name, or NULL */
	ArrayType  *scope;
} PollRegistryFeed;

typedef struct PollFeedName
{
	NameData	name;			/* hash key */
	int64		id;
} PollFeedName;

static PollRelations relations;

static bool registry_stale = true;
static MemoryContext registry_context = NULL;
static HTAB *registry_by_id;
static HTAB *registry_by_name;
static HTAB *registry_relids;	/* the tracked tables */

static uint64 generation = 1;
static uint64 invalidations = 0;	/* of any relation */

PG_FUNCTION_INFO_V1(poll_ext_invalidate);
PG_FUNCTION_INFO_V1(poll_ext_local_only);

static Oid
find_relation(Oid nspid, const char *name)
{
	Oid			relid = OidIsValid(nspid) ? get_relname_relid(name, nspid) : InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist", POLL_SCHEMA, name),
				 errhint("Run CREATE EXTENSION poll_ext.")));
	return relid;
}

static void
read_epoch(PollRelations *result)
{
	Relation	rel = poll_catalog_open(result->epoch, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple = systable_getnext(scan);
	bool		isnull;
	uint64		parts[3];

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.epoch\" is empty", POLL_SCHEMA),
				 errhint("Drop and create the extension.")));
	parts[0] = DatumGetInt64(heap_getattr(tuple, ANUM_EPOCH_VALUE, RelationGetDescr(rel), &isnull));
	parts[1] = MyDatabaseId;
	parts[2] = GetSystemIdentifier();
	result->secret = *DatumGetUUIDP(heap_getattr(tuple, ANUM_EPOCH_SECRET, RelationGetDescr(rel),
												 &isnull));
	result->created_at = DatumGetTimestampTz(heap_getattr(tuple, ANUM_EPOCH_CREATED,
														  RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	result->epoch_value = hash_bytes_extended((unsigned char *) parts, sizeof(parts), 0);
}

static const PollRelations *
get_relations(void)
{
	if (!relations.valid)
	{
		PollRelations new;
		uint64		before = invalidations;
		Oid			nspid = get_namespace_oid(POLL_SCHEMA, true);

		for (int i = 0; i < POLL_SEGMENTS; i++)
		{
			char		name[NAMEDATALEN];

			snprintf(name, sizeof(name), "change_%d", i);
			new.change[i] = find_relation(nspid, name);
			snprintf(name, sizeof(name), "change_%d_idx", i);
			new.change_index[i] = find_relation(nspid, name);
		}
		new.segment = find_relation(nspid, "segment");
		new.feed = find_relation(nspid, "feed");
		new.epoch = find_relation(nspid, "epoch");
		new.tick = find_relation(nspid, "tick");
		new.tick_index = find_relation(nspid, "tick_idx");
		new.shape = find_relation(nspid, "shape");
		new.rate_policy = find_relation(nspid, "rate_policy");
		read_epoch(&new);
		/* what has changed meanwhile is for the next use */
		new.valid = (before == invalidations);
		relations = new;
	}
	return &relations;
}

Relation
poll_catalog_open(Oid relid, LOCKMODE lockmode)
{
	Relation	rel = try_relation_open(relid, lockmode);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("extension \"poll_ext\" was dropped a moment ago"),
				 errhint("Try again if it was created again.")));
	return rel;
}

Relation
poll_catalog_open_feed(const PollFeed *feed)
{
	Relation	rel = try_relation_open(feed->relid, AccessShareLock);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_NOT_FOUND),
				 errmsg("the table of a feed was dropped"),
				 errdetail("Feed \"%s\".", NameStr(feed->name))));
	return rel;
}

bool
poll_catalog_exists(void)
{
	return relations.valid ||
		OidIsValid(get_relname_relid("segment", get_namespace_oid(POLL_SCHEMA, true)));
}

Oid
poll_catalog_change(int segment)
{
	return get_relations()->change[segment];
}

Oid
poll_catalog_change_index(int segment)
{
	return get_relations()->change_index[segment];
}

Oid
poll_catalog_segment(void)
{
	return get_relations()->segment;
}

bool
poll_catalog_is_segment(Oid relid)
{
	return !OidIsValid(relid) || !relations.valid || relid == relations.segment;
}

Oid
poll_catalog_feed(void)
{
	return get_relations()->feed;
}

Oid
poll_catalog_tick(void)
{
	return get_relations()->tick;
}

Oid
poll_catalog_tick_index(void)
{
	return get_relations()->tick_index;
}

Oid
poll_catalog_shape(void)
{
	return get_relations()->shape;
}

Oid
poll_catalog_rate_policy(void)
{
	return get_relations()->rate_policy;
}

const pg_uuid_t *
poll_catalog_secret(void)
{
	return &get_relations()->secret;
}

TimestampTz
poll_catalog_created_at(void)
{
	return get_relations()->created_at;
}

TimeLineID
poll_catalog_timeline(void)
{
	TimeLineID	timeline;

	if (RecoveryInProgress())
		GetXLogReplayRecPtr(&timeline);
	else
		timeline = GetWALInsertionTimeLine();
	return timeline;
}

uint64
poll_catalog_epoch_on(TimeLineID timeline)
{
	return hash_combine64(get_relations()->epoch_value, timeline);
}

uint64
poll_catalog_epoch(void)
{
	return poll_catalog_epoch_on(poll_catalog_timeline());
}

uint64
poll_catalog_generation(void)
{
	return generation;
}

/* A copy of an array, in the context; NULL for NULL. */
static ArrayType *
array_attr(HeapTuple tuple, int attnum, TupleDesc desc, MemoryContext context)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, attnum, desc, &isnull);
	MemoryContext old;
	ArrayType  *array;

	if (isnull)
		return NULL;
	old = MemoryContextSwitchTo(context);
	array = DatumGetArrayTypePCopy(value);
	MemoryContextSwitchTo(old);
	return array;
}

/* Enters the feed of one tuple of poll.feed. */
static void
registry_enter(HTAB *by_id, HTAB *by_name, HTAB *relids, HeapTuple tuple, TupleDesc desc,
			   MemoryContext context)
{
	PollRegistryFeed entry;
	PollFeed	feed;
	bool		isnull;

	memset(&feed, 0, sizeof(feed));
	feed.id = DatumGetInt64(heap_getattr(tuple, ANUM_FEED_ID, desc, &isnull));
	namestrcpy(&feed.name,
			   TextDatumGetCString(heap_getattr(tuple, ANUM_FEED_NAME, desc, &isnull)));
	feed.relid = DatumGetObjectId(heap_getattr(tuple, ANUM_FEED_RELATION, desc, &isnull));
	feed.xmin = HeapTupleHeaderGetXmin(tuple->t_data);
	feed.stamp = HeapTupleHeaderGetRawXmin(tuple->t_data);
	feed.always = DatumGetBool(heap_getattr(tuple, ANUM_FEED_ALWAYS, desc, &isnull));
	feed.expose_deletes = DatumGetBool(heap_getattr(tuple, ANUM_FEED_EXPOSE, desc, &isnull));
	feed.tracked_at = DatumGetTimestampTz(heap_getattr(tuple, ANUM_FEED_TRACKED, desc, &isnull));
	entry.columns = array_attr(tuple, ANUM_FEED_COLUMNS, desc, context);
	entry.scope = array_attr(tuple, ANUM_FEED_SCOPE, desc, context);
	feed.projected = entry.columns != NULL;
	feed.scoped = entry.scope != NULL;
	entry.feed = feed;

	*(PollRegistryFeed *) hash_search(by_id, &feed.id, HASH_ENTER, NULL) = entry;
	((PollFeedName *) hash_search(by_name, &feed.name, HASH_ENTER, NULL))->id = feed.id;
	hash_search(relids, &feed.relid, HASH_ENTER, NULL);
}

static void
registry_load(void)
{
	MemoryContext context;
	HASHCTL		ctl;
	HTAB	   *by_id;
	HTAB	   *by_name;
	HTAB	   *relids;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	context = AllocSetContextCreate(TopMemoryContext, "poll_ext feeds", ALLOCSET_SMALL_SIZES);
	ctl.hcxt = context;
	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(PollRegistryFeed);
	by_id = hash_create("poll_ext feeds by id", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.keysize = sizeof(NameData);
	ctl.entrysize = sizeof(PollFeedName);
	by_name = hash_create("poll_ext feeds by name", 64, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Oid);
	relids = hash_create("poll_ext tracked tables", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	/* what changes while we read makes it stale again, for the next use */
	registry_stale = false;
	PG_TRY();
	{
		/* opening the table handles the invalidations that came before */
		rel = poll_catalog_open(poll_catalog_feed(), AccessShareLock);
		scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
			registry_enter(by_id, by_name, relids, tuple, RelationGetDescr(rel), context);
		systable_endscan(scan);
		table_close(rel, AccessShareLock);
	}
	PG_CATCH();
	{
		registry_stale = true;
		MemoryContextDelete(context);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (registry_context != NULL)
		MemoryContextDelete(registry_context);
	registry_context = context;
	registry_by_id = by_id;
	registry_by_name = by_name;
	registry_relids = relids;
}

static PollRegistryFeed *
registry_find(int64 id)
{
	if (registry_stale)
		registry_load();
	return hash_search(registry_by_id, &id, HASH_FIND, NULL);
}

bool
poll_catalog_find(const char *name, PollFeed *feed)
{
	PollFeedName *entry;

	if (strlen(name) >= NAMEDATALEN)
		return false;
	if (registry_stale)
		registry_load();
	entry = hash_search(registry_by_name, name, HASH_FIND, NULL);
	return entry != NULL && poll_catalog_find_id(entry->id, feed);
}

bool
poll_catalog_find_id(int64 id, PollFeed *feed)
{
	PollRegistryFeed *entry = registry_find(id);

	if (entry != NULL)
		*feed = entry->feed;
	return entry != NULL;
}

/* An array of names as a list of strings. */
static List *
name_list(ArrayType *array)
{
	List	   *list = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	if (array == NULL)
		return NIL;
	deconstruct_array(array, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
		list = lappend(list, pstrdup(NameStr(*DatumGetName(elements[i]))));
	return list;
}

void
poll_catalog_lists(int64 id, List **columns, List **scope)
{
	PollRegistryFeed *entry = registry_find(id);

	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_NOT_FOUND),
				 errmsg("the feed is not tracked any more")));
	*columns = name_list(entry->columns);
	*scope = name_list(entry->scope);
}

static int
cmp_ids(const ListCell *a, const ListCell *b)
{
	int64		x = *(int64 *) lfirst(a);
	int64		y = *(int64 *) lfirst(b);

	return (x > y) - (x < y);
}

List *
poll_catalog_feeds_of(Oid relid)
{
	HASH_SEQ_STATUS status;
	PollRegistryFeed *entry;
	List	   *ids = NIL;

	if (registry_stale)
		registry_load();
	if (OidIsValid(relid) && hash_search(registry_relids, &relid, HASH_FIND, NULL) == NULL)
		return NIL;
	hash_seq_init(&status, registry_by_id);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (!OidIsValid(relid) || entry->feed.relid == relid)
		{
			int64	   *id = palloc(sizeof(int64));

			*id = entry->feed.id;
			ids = lappend(ids, id);
		}
	list_sort(ids, cmp_ids);
	return ids;
}

char *
poll_catalog_table_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

Oid
poll_catalog_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Statement trigger on poll.feed and others: all backends read them again. */
Datum
poll_ext_invalidate(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s.invalidate\" was not called as a trigger", POLL_SCHEMA)));
	CacheInvalidateRelcache(trigdata->tg_relation);
	return PointerGetDatum(NULL);
}

/*
 * Row trigger on our tables: nothing comes from another server.  A publication
 * FOR ALL TABLES has them, too, and what another log says of transactions is
 * not about ours.  What we write ourselves, in an apply worker as well, goes
 * either past triggers or through poll_run_as_owner().
 */
Datum
poll_ext_local_only(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s.local_only\" was not called as a BEFORE ROW trigger", POLL_SCHEMA)));
	if (IsLogicalWorker() && !InLocalUserIdChange())
		return PointerGetDatum(NULL);
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ?
						   trigdata->tg_newtuple : trigdata->tg_trigtuple);
}

static bool
is_log(Oid relid)
{
	for (int i = 0; i < POLL_SEGMENTS; i++)
		if (relid == relations.change[i] || relid == relations.change_index[i])
			return true;
	return false;
}

/* A relcache callback: marks, and reads nothing. */
bool
poll_catalog_invalidate(Oid relid)
{
	invalidations++;
	if (!OidIsValid(relid) || !relations.valid ||
		relid == relations.feed || relid == relations.epoch ||
		relid == relations.tick || relid == relations.tick_index || is_log(relid))
	{
		relations.valid = false;
		registry_stale = true;
		generation++;
		return true;
	}
	if (registry_stale || registry_relids == NULL || hash_search(registry_relids, &relid, HASH_FIND, NULL) != NULL)
		generation++;
	return false;
}

void
poll_catalog_privileges_changed(void)
{
	generation++;
}
