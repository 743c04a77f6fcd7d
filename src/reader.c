/*
 * reader.c
 *		Live rows of a tracked table, as JSON or as tuples.
 *
 * The log knows which keys changed; the rows come from the table, under the
 * caller's snapshot and as the caller, so that privileges and row-level
 * security apply.  The queries (plan.c) are prepared once per feed and user.
 * Rows are written as JSON while the executor produces them and never stored,
 * unless tuples are wanted.
 *
 * A live row answers for a logged key only if its key has the same text.  If
 * the table's equality is wider (numeric 1.0 and 1.00, case-insensitive
 * collations), the logged key itself is gone: a tombstone.
 *
 * A caller under row-level security gets no tombstones: a row that is not
 * there and one that is not for the caller must look the same, and a key is
 * data, too.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "error.h"
#include "json.h"
#include "key.h"
#include "plan.h"
#include "reader.h"
#include "varint.h"

/* the readers are forgotten when there are more */
#define MAX_READERS		256

typedef struct PollReaderTag
{
	int64		feed;
	uint64		nulls;			/* which scope columns it looks for null in */
	uint64		userid;			/* no Oid: the bytes are compared, padding too */
} PollReaderTag;

typedef struct PollReader
{
	MemoryContext context;		/* this struct, and all below */
	PollSource	source;
	bool		rls;			/* does row-level security apply? */
	PollJsonWriter *key_writers;
	int		   *key_columns;	/* their places in the query's result */
	int		   *scope_columns;	/* likewise */
	int			ncolumns;		/* of the result */
	int			ndata;			/* of them the feed's own, in front */
	AttrNumber *attnums;		/* the columns' numbers in the table */
	Oid		   *types;
	PollJsonWriter *writers;
	SPIPlanPtr	lookup;
	SPIPlanPtr	first;			/* scan from the first row */
	SPIPlanPtr	after;			/* scan after a key */
} PollReader;

typedef struct CachedReader
{
	PollReaderTag tag;			/* hash key */
	Oid			relid;
	bool		valid;			/* reset by the relcache callback */
	PollReader *reader;
} CachedReader;

static HTAB *readers = NULL;

/* ---- the cache ---- */

void
poll_reader_invalidate(Oid relid)
{
	HASH_SEQ_STATUS status;
	CachedReader *cached;

	if (readers == NULL)
		return;
	hash_seq_init(&status, readers);
	while ((cached = hash_seq_search(&status)) != NULL)
		if (!OidIsValid(relid) || cached->relid == relid)
			cached->valid = false;
}

/* Frees the plans with their reader. */
static void
reader_freed(void *arg)
{
	PollReader *reader = arg;

	if (reader->lookup)
		SPI_freeplan(reader->lookup);
	if (reader->first)
		SPI_freeplan(reader->first);
	if (reader->after)
		SPI_freeplan(reader->after);
}

/* Somebody up the stack may be using it: it goes with the transaction. */
static void
reader_retire(PollReader *reader)
{
	if (reader != NULL)
		MemoryContextSetParent(reader->context, TopTransactionContext);
}

static void
forget_readers(void)
{
	HASH_SEQ_STATUS status;
	CachedReader *cached;

	hash_seq_init(&status, readers);
	while ((cached = hash_seq_search(&status)) != NULL)
	{
		reader_retire(cached->reader);
		hash_search(readers, &cached->tag, HASH_REMOVE, NULL);
	}
}

/* Adds a column to the query's result, unless it is there; returns its place. */
static int
add_column(PollReader *reader, StringInfo list, Relation rel, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);

	for (int i = 0; i < reader->ncolumns; i++)
		if (reader->attnums[i] == attnum)
			return i;
	appendStringInfo(list, "t.%s, ", quote_identifier(NameStr(att->attname)));
	poll_json_writer_init(&reader->writers[reader->ncolumns], NameStr(att->attname), att->atttypid);
	reader->types[reader->ncolumns] = att->atttypid;
	reader->attnums[reader->ncolumns] = attnum;
	return reader->ncolumns++;
}

static int *
add_key(PollReader *reader, StringInfo list, Relation rel, const PollKey *key)
{
	int		   *columns = palloc(sizeof(int) * key->ncolumns);

	for (int i = 0; i < key->ncolumns; i++)
		columns[i] = add_column(reader, list, rel, key->columns[i].attnum);
	return columns;
}

/* The query's result: what the feed shows, and the rest of the key and scope. */
static void
reader_columns(PollReader *reader, Relation rel, List *columns)
{
	TupleDesc	desc = RelationGetDescr(rel);
	PollKey    *key = reader->source.key;
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	reader->attnums = palloc(sizeof(AttrNumber) * desc->natts);
	reader->types = palloc(sizeof(Oid) * desc->natts);
	reader->writers = palloc0(sizeof(PollJsonWriter) * desc->natts);
	foreach(lc, columns)
		add_column(reader, &list, rel, poll_key_attnum(rel, lfirst(lc)));
	for (int i = 0; columns == NIL && i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			add_column(reader, &list, rel, i + 1);
	reader->ndata = reader->ncolumns;

	reader->key_columns = add_key(reader, &list, rel, key);
	reader->key_writers = palloc(sizeof(PollJsonWriter) * key->ncolumns);
	for (int k = 0; k < key->ncolumns; k++)
		reader->key_writers[k] = reader->writers[reader->key_columns[k]];
	if (reader->source.scope != NULL)
		reader->scope_columns = add_key(reader, &list, rel, reader->source.scope);
	reader->source.columns = list.data;
}

static PollReader *
reader_build(Relation rel, const PollFeed *feed)
{
	MemoryContext context;
	MemoryContext old;
	PollReader *reader;
	MemoryContextCallback *callback;
	List	   *columns;
	List	   *scope;

	/* a child of the current context until complete: no leak on error */
	context = AllocSetContextCreate(CurrentMemoryContext, "poll_ext reader",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	reader = palloc0(sizeof(PollReader));
	callback = palloc(sizeof(MemoryContextCallback));
	callback->func = reader_freed;
	callback->arg = reader;
	MemoryContextRegisterResetCallback(context, callback);
	reader->context = context;
	reader->source.relid = RelationGetRelid(rel);
	reader->source.name = poll_catalog_table_name(RelationGetRelid(rel));
	reader->source.only = rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE;
	reader->source.key = poll_key_build(rel);
	poll_catalog_lists(feed->id, &columns, &scope);
	if (scope != NIL)
		reader->source.scope = poll_key_of_columns(rel, scope);
	reader_columns(reader, rel, columns);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, TopMemoryContext);
	return reader;
}

/*
 * The file of the table as the active snapshot knows it, 0 if it does not know
 * the table.
 */
static Oid
file_in_snapshot(Oid relid)
{
	Relation	pg_class = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			file;

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(pg_class, ClassOidIndexId, true, GetActiveSnapshot(), 1, &key);
	tuple = systable_getnext(scan);
	file = HeapTupleIsValid(tuple) ? ((Form_pg_class) GETSTRUCT(tuple))->relfilenode : InvalidOid;
	systable_endscan(scan);
	table_close(pg_class, AccessShareLock);
	return file;
}

/* Has the table another file than the active snapshot knows? */
static bool
has_new_file(Oid relid, bool partition)
{
	HeapTuple	tuple;
	TransactionId xmin;
	Oid			file;
	Oid			known;

	/* normally its row in pg_class is known to be older */
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	xmin = HeapTupleHeaderGetXmin(tuple->t_data);
	file = ((Form_pg_class) GETSTRUCT(tuple))->relfilenode;
	ReleaseSysCache(tuple);
	if (!TransactionIdIsNormal(xmin) ||
		!(TransactionIdIsCurrentTransactionId(xmin) ||
		  XidInMVCCSnapshot(xmin, GetActiveSnapshot())))
		return false;

	known = file_in_snapshot(relid);
	/* a new partition has nothing that the snapshot could show */
	return known != file && !(partition && !OidIsValid(known));
}

/*
 * The snapshot is older than our lock, and does not show what this transaction
 * did.  A table that has got a new file since looks empty under it, and nothing
 * would ever tell the client otherwise.
 */
static void
check_as_of_snapshot(Relation rel)
{
	bool		partitioned = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	List	   *relids = partitioned ?
	find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL) :
	list_make1_oid(RelationGetRelid(rel));
	ListCell   *lc;

	foreach(lc, relids)
		if (has_new_file(lfirst_oid(lc), partitioned))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("table \"%s\" was rewritten or truncated after the snapshot of this poll was taken",
						get_rel_name(lfirst_oid(lc))),
				 errhint("Poll again, in a new transaction.")));
	list_free(relids);
}

/*
 * The reader of that feed for the current user, and for scans of scopes that
 * are null in those columns; it stays valid until the end of the transaction.
 */
static PollReader *
reader_open(const PollFeed *feed, uint64 nulls)
{
	PollReaderTag tag;
	CachedReader *cached;
	Relation	rel;
	bool		found;
	bool		rls;

	/* the lock also brings the invalidations of all that happened before */
	rel = poll_catalog_open_feed(feed);
	check_as_of_snapshot(rel);

	if (readers == NULL)
	{
		HASHCTL		ctl;

		ctl.keysize = sizeof(PollReaderTag);
		ctl.entrysize = sizeof(CachedReader);
		readers = hash_create("poll_ext readers", 32, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	else if (hash_get_num_entries(readers) > MAX_READERS)
		forget_readers();

	tag.feed = feed->id;
	tag.nulls = nulls;
	tag.userid = GetUserId();
	cached = hash_search(readers, &tag, HASH_ENTER, &found);
	if (!found)
	{
		cached->valid = false;
		cached->reader = NULL;
	}
	/* a role's BYPASSRLS comes and goes without an invalidation of plans */
	rls = check_enable_rls(feed->relid, InvalidOid, true) == RLS_ENABLED;
	if (!cached->valid || cached->reader == NULL || cached->reader->rls != rls)
	{
		PollReader *reader;

		reader_retire(cached->reader);
		cached->reader = NULL;
		cached->relid = feed->relid;
		cached->valid = true;
		reader = reader_build(rel, feed);
		/* building may have run anything; look again */
		cached = hash_search(readers, &tag, HASH_ENTER, &found);
		if (found)
			reader_retire(cached->reader);
		else
		{
			cached->relid = feed->relid;
			cached->valid = false;
		}
		reader->rls = rls;
		cached->reader = reader;
	}
	relation_close(rel, NoLock);
	return cached->reader;
}

/* ---- rows ---- */

/* Takes the rows of either query. */
typedef struct PollReceiver
{
	DestReceiver pub;
	PollReader *reader;
	MemoryContext row_context;	/* reset for each row */
	PollPage   *page;
	const char *scope;			/* that was asked for, or NULL */
	int			scope_len;

	/* a lookup: which row is for whom */
	PollChange **changes;
	Datum	   *values;			/* the keys looked for */
	int		   *place;			/* from the query's n to changes[] and values */
	StringInfoData key;			/* of the row */

	/* a scan */
	bool		scan;
	MemoryContext page_context;
	int			feed;
	int			room;			/* rows that the page may still take */
	bool		more;			/* and there was one too many */
	char	   *last_key;		/* of the last row but that one */
	int			last_keylen;
} PollReceiver;

static void
write_object(StringInfo buf, PollJsonWriter *writers, const int *columns, int n,
			 const Datum *values, const bool *isnull)
{
	appendStringInfoChar(buf, '{');
	for (int i = 0; i < n; i++)
	{
		int			column = columns ? columns[i] : i;

		if (i > 0)
			appendStringInfoChar(buf, ',');
		appendStringInfoString(buf, writers[i].label);
		if (isnull && isnull[column])
			appendStringInfoString(buf, "null");
		else
			poll_json_write(buf, &writers[i], values[column]);
	}
	appendStringInfoChar(buf, '}');
}

/* The columns that the feed shows, where the table has them; the others are null. */
static void
put_tuple(PollPage *page, const PollReader *reader, TupleTableSlot *slot)
{
	Datum	   *values = palloc(sizeof(Datum) * page->desc->natts);
	bool	   *isnull = palloc(sizeof(bool) * page->desc->natts);

	memset(isnull, true, sizeof(bool) * page->desc->natts);
	for (int i = 0; i < reader->ndata; i++)
	{
		values[reader->attnums[i] - 1] = slot->tts_values[i];
		isnull[reader->attnums[i] - 1] = slot->tts_isnull[i];
	}
	tuplestore_putvalues(page->tuples, page->desc, values, isnull);
}

static void
write_row(PollReceiver *self, PollChange *change, TupleTableSlot *slot)
{
	PollReader *reader = self->reader;
	PollPage   *page = self->page;
	StringInfo	json = page->json;

	change->result = POLL_RESULT_UPSERT;
	if (page->content == POLL_CONTENT_TUPLES)
		put_tuple(page, reader, slot);
	if (page->content == POLL_CONTENT_TUPLES || page->content == POLL_CONTENT_NONE)
		return;
	change->json_key = json->len;
	write_object(json, reader->key_writers, reader->key_columns, reader->source.key->ncolumns,
				 slot->tts_values, slot->tts_isnull);
	change->json_key_len = json->len - change->json_key;
	change->json_data = json->len;
	if (page->content == POLL_CONTENT_ROWS)
		write_object(json, reader->writers, NULL, reader->ndata,
					 slot->tts_values, slot->tts_isnull);
	change->json_data_len = json->len - change->json_data;
}

/* The stored key of the row in the slot, into self->key. */
static void
row_key(PollReceiver *self, TupleTableSlot *slot)
{
	PollKey    *key = self->reader->source.key;

	resetStringInfo(&self->key);
	for (int k = 0; k < key->ncolumns; k++)
		poll_key_append_value(&self->key, &key->columns[k],
							  slot->tts_values[self->reader->key_columns[k]]);
}

/* Is the row's key, to the letter, the one that was looked for? */
static bool
same_key(PollReceiver *self, const PollChange *change, const Datum *values, TupleTableSlot *slot)
{
	PollKey    *key = self->reader->source.key;
	bool		same = true;

	/* where the text takes changing settings, the same bits will do */
	for (int k = 0; same && k < key->ncolumns; k++)
		same = key->columns[k].settings != 0 &&
			datum_image_eq(values[k], slot->tts_values[self->reader->key_columns[k]],
						   key->columns[k].typbyval, key->columns[k].typlen);
	if (same)
		return true;
	row_key(self, slot);
	return self->key.len == change->keylen &&
		memcmp(self->key.data, change->key, change->keylen) == 0;
}

static bool
in_scope(PollReceiver *self, TupleTableSlot *slot)
{
	PollKey    *scope = self->reader->source.scope;

	if (scope == NULL)
		return true;
	resetStringInfo(&self->key);
	for (int i = 0; i < scope->ncolumns; i++)
		poll_scope_append_value(&self->key, &scope->columns[i],
								slot->tts_values[self->reader->scope_columns[i]],
								slot->tts_isnull[self->reader->scope_columns[i]]);
	return self->key.len == self->scope_len &&
		memcmp(self->key.data, self->scope, self->scope_len) == 0;
}

static void
receive_lookup(PollReceiver *self, TupleTableSlot *slot)
{
	int			n = self->place[DatumGetInt64(slot->tts_values[self->reader->ncolumns]) - 1];

	if (!same_key(self, self->changes[n], &self->values[n * self->reader->source.key->ncolumns], slot))
		return;
	if (in_scope(self, slot))
		write_row(self, self->changes[n], slot);
	else
		self->changes[n]->result = POLL_RESULT_DELETE;	/* the caller can see
														 * where it is */
}

static void
receive_scan(PollReceiver *self, TupleTableSlot *slot)
{
	MemoryContext old;
	PollChange *change = NULL;
	bool		wanted = in_scope(self, slot);

	if (self->room == 0)
	{
		self->more = true;
		return;
	}
	self->room--;
	row_key(self, slot);

	old = MemoryContextSwitchTo(self->page_context);
	self->last_key = memcpy(palloc(self->key.len), self->key.data, self->key.len);
	self->last_keylen = self->key.len;
	if (wanted)
	{
		change = palloc0(sizeof(PollChange));
		change->feed = self->feed;
		change->key = self->last_key;
		change->keylen = self->last_keylen;
		self->page->changes[self->page->nchanges++] = change;
	}
	MemoryContextSwitchTo(old);
	if (wanted)
		write_row(self, change, slot);
}

static bool
receive(TupleTableSlot *slot, DestReceiver *dest)
{
	PollReceiver *self = (PollReceiver *) dest;
	MemoryContext old = MemoryContextSwitchTo(self->row_context);

	slot_getallattrs(slot);
	if (self->scan)
		receive_scan(self, slot);
	else
		receive_lookup(self, slot);
	MemoryContextSwitchTo(old);
	MemoryContextReset(self->row_context);
	return true;
}

static void
receiver_startup(DestReceiver *dest, int operation, TupleDesc desc)
{
}

static void
receiver_done(DestReceiver *dest)
{
}

/* The caller's idea of the table may be older than our lock. */
static void
check_descriptor(const PollReader *reader, const PollPage *page)
{
	for (int i = 0; i < reader->ndata; i++)
	{
		AttrNumber	attnum = reader->attnums[i];

		if (attnum > page->desc->natts ||
			TupleDescAttr(page->desc, attnum - 1)->atttypid != reader->types[i])
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("table %s was altered during a poll", reader->source.name),
					 errhint("Poll again.")));
	}
}

static void
receiver_init(PollReceiver *self, PollReader *reader, const PollFeedSet *set, int feed,
			  PollPage *page)
{
	memset(self, 0, sizeof(PollReceiver));
	self->pub.receiveSlot = receive;
	self->pub.rStartup = receiver_startup;
	self->pub.rShutdown = receiver_done;
	self->pub.rDestroy = receiver_done;
	self->pub.mydest = DestNone;
	self->reader = reader;
	self->page = page;
	if (page->content == POLL_CONTENT_TUPLES)
		check_descriptor(reader, page);
	self->feed = feed;
	self->scope = poll_feedset_scope(set, feed);
	self->scope_len = set->members[feed].scope_len;

	self->row_context = AllocSetContextCreate(CurrentMemoryContext, "poll_ext row",
											  ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&self->key);
}

/* ---- lookup ---- */

/* Is that text the one that the log would have for these values? */
static bool
is_text_of(PollReader *reader, const PollChange *change, const Datum *values)
{
	StringInfoData buf;
	bool		same;

	initStringInfo(&buf);
	for (int k = 0; k < reader->source.key->ncolumns; k++)
		poll_key_append_value(&buf, &reader->source.key->columns[k], values[k]);
	same = buf.len == change->keylen && memcmp(buf.data, change->key, buf.len) == 0;
	pfree(buf.data);
	return same;
}

/*
 * A key without a row: from its values or, if it has none under the key's
 * present type, as the strings that the log has.  The context is reset.
 */
static void
write_key(PollReader *reader, PollChange *change, const Datum *values, bool valid,
		  StringInfo json, MemoryContext context)
{
	PollKey    *key = reader->source.key;
	MemoryContext old = MemoryContextSwitchTo(context);
	char	   *parts[INDEX_MAX_KEYS];
	int			n;

	change->json_key = json->len;
	if (valid && is_text_of(reader, change, values))
		write_object(json, reader->key_writers, NULL, key->ncolumns, values, NULL);
	else
	{
		n = poll_key_split(change->key, change->keylen, parts, key->ncolumns);
		appendStringInfoChar(json, '{');
		for (int i = 0; i < n; i++)
		{
			if (i > 0)
				appendStringInfoChar(json, ',');
			appendStringInfoString(json, reader->key_writers[i].label);
			escape_json(json, parts[i]);
		}
		appendStringInfoChar(json, '}');
	}
	change->json_key_len = json->len - change->json_key;
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
}

/* The values of the changes' keys: n * ncolumns of them, and which are valid. */
static Datum *
parse_keys(PollReader *reader, PollChange **changes, int n, bool **valid)
{
	const char **keys = palloc(sizeof(char *) * n);
	int		   *lengths = palloc(sizeof(int) * n);
	Datum	   *values = palloc0(sizeof(Datum) * n * reader->source.key->ncolumns);

	*valid = palloc(sizeof(bool) * n);
	for (int i = 0; i < n; i++)
	{
		keys[i] = changes[i]->key;
		lengths[i] = changes[i]->keylen;
	}
	poll_key_parse(reader->source.key, keys, lengths, n, false, values, *valid);
	return values;
}

/* The query's arguments: an array per key column, of the m keys in place[]. */
static void
lookup_args(PollReader *reader, PollChange **changes, const Datum *values, const int *place, int m,
			Datum *args, Oid *types)
{
	PollKey    *key = reader->source.key;
	Datum	   *elements = palloc(sizeof(Datum) * m);

	for (int k = 0; k < key->ncolumns; k++)
	{
		PollKeyColumn *column = &key->columns[k];
		Oid			element = poll_plan_element(column);

		for (int i = 0; i < m; i++)
		{
			char	   *parts[INDEX_MAX_KEYS];

			if (element == column->type)
				elements[i] = values[place[i] * key->ncolumns + k];
			else
			{
				poll_key_split(changes[place[i]]->key, changes[place[i]]->keylen,
							   parts, key->ncolumns);
				elements[i] = CStringGetTextDatum(parts[k]);
			}
		}
		types[k] = get_array_type(element);
		args[k] = PointerGetDatum(element == column->type ?
								  construct_array(elements, m, element, column->typlen,
												  column->typbyval, column->typalign) :
								  construct_array(elements, m, TEXTOID, -1, false, TYPALIGN_INT));
	}
}

/* May the caller learn of a key that he sees no row for? */
static bool
tells_deletes(const PollReader *reader, const PollFeed *feed)
{
	return !reader->rls || feed->expose_deletes;
}

void
poll_reader_lookup(const PollFeedSet *set, PollPage *page, int feed, PollChange **changes, int n)
{
	PollReader *reader = reader_open(&set->members[feed].feed, 0);
	PollReceiver receiver;
	Datum		args[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	PollResult	missing = tells_deletes(reader, &set->members[feed].feed) ?
	POLL_RESULT_DELETE : POLL_RESULT_SKIP;
	bool	   *valid;
	int			m = 0;

	SPI_connect();
	receiver_init(&receiver, reader, set, feed, page);
	receiver.changes = changes;
	receiver.values = parse_keys(reader, changes, n, &valid);
	receiver.place = palloc(sizeof(int) * n);
	for (int i = 0; i < n; i++)
	{
		changes[i]->result = missing;
		if (valid[i])
			receiver.place[m++] = i;
	}
	if (m > 0)
	{
		lookup_args(reader, changes, receiver.values, receiver.place, m, args, types);
		if (reader->lookup == NULL)
			reader->lookup = poll_plan_lookup(&reader->source);
		/* row-level security may keep the index out of reach */
		poll_plan_run(&reader->source, reader->lookup, reader->rls ? "enable_hashjoin" : NULL,
					  reader->source.key->ncolumns, args, types, &receiver.pub);
	}
	for (int i = 0; i < n; i++)
		if (changes[i]->result == POLL_RESULT_DELETE)
			write_key(reader, changes[i], &receiver.values[i * reader->source.key->ncolumns],
					  valid[i], page->json, receiver.row_context);
	SPI_finish();
}

bool
poll_reader_keys(const PollFeedSet *set, int feed, PollChange **changes, int n, StringInfo json)
{
	PollReader *reader = reader_open(&set->members[feed].feed, 0);
	MemoryContext context;
	bool	   *valid;
	Datum	   *values;

	if (!tells_deletes(reader, &set->members[feed].feed))
		return false;
	context = AllocSetContextCreate(CurrentMemoryContext, "poll_ext row", ALLOCSET_DEFAULT_SIZES);
	values = parse_keys(reader, changes, n, &valid);
	for (int i = 0; i < n; i++)
	{
		changes[i]->result = POLL_RESULT_UPSERT;	/* or not: it is not
													 * looked up */
		write_key(reader, changes[i], &values[i * reader->source.key->ncolumns], valid[i], json,
				  context);
	}
	MemoryContextDelete(context);
	return true;
}

/* ---- scan ---- */

/* The key in the cursor as arguments; returns how many. */
static int
after_args(PollReader *reader, const PollCursor *cursor, Datum *args, Oid *types)
{
	PollKey    *key = reader->source.key;
	bool		valid;

	if (cursor->keylen == 0)
		return 0;
	poll_key_parse(key, &cursor->key, &cursor->keylen, 1, true, args, &valid);
	if (!valid)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_EXPIRED),
				 errmsg("the cursor has expired"),
				 errdetail("The type of the key has changed during a full sync."),
				 errhint("Poll without a cursor for a full sync.")));
	for (int i = 0; i < key->ncolumns; i++)
		types[i] = key->columns[i].type;
	return key->ncolumns;
}

/* Which of the scope's columns are null? */
static uint64
scope_nulls(const char *scope, int len)
{
	const char *end = scope + len;
	uint64		nulls = 0;
	uint64		size;

	for (int i = 0; scope < end; i++)
	{
		if (*scope++ == '\0')
			nulls |= UINT64CONST(1) << i;
		else if (poll_varint_get(&scope, end, &size))
			scope += size;
	}
	return nulls;
}

/* The scope's values that are not null as arguments; returns how many. */
static int
scope_args(PollReader *reader, uint64 nulls, const char *scope, int len, Datum *args, Oid *types)
{
	PollKey    *columns = reader->source.scope;
	const char *end = scope + len;
	int			n = 0;

	for (int i = 0; columns && i < columns->ncolumns; i++)
	{
		scope++;
		if (nulls & UINT64CONST(1) << i)
			continue;
		scope = poll_key_parse_value(&columns->columns[i], scope, end, &args[n]);
		types[n++] = columns->columns[i].type;
	}
	return n;
}

bool
poll_reader_scan(const PollFeedSet *set, PollPage *page, int limit)
{
	int			feed = page->next.sync_feed;
	const char *scope = poll_feedset_scope(set, feed);
	int			scope_len = set->members[feed].scope_len;
	uint64		nulls = scope_nulls(scope, scope_len);
	PollReader *reader = reader_open(&set->members[feed].feed, nulls);
	PollReceiver receiver;
	MemoryContext page_context = CurrentMemoryContext;
	bool		after = page->next.keylen > 0;
	int			max_args = INDEX_MAX_KEYS + 1 + (reader->source.scope ? reader->source.scope->ncolumns : 0);
	Datum	   *args;
	Oid		   *types;
	int			nargs;
	SPIPlanPtr *plan;

	SPI_connect();
	args = palloc(sizeof(Datum) * max_args);
	types = palloc(sizeof(Oid) * max_args);
	receiver_init(&receiver, reader, set, feed, page);
	receiver.scan = true;
	receiver.page_context = page_context;
	receiver.room = limit;

	nargs = after_args(reader, &page->next, args, types);
	types[nargs] = INT8OID;
	args[nargs++] = Int64GetDatum((int64) limit + 1);
	nargs += scope_args(reader, nulls, scope, scope_len, args + nargs, types + nargs);
	plan = after ? &reader->after : &reader->first;
	if (*plan == NULL)
		*plan = poll_plan_scan(&reader->source, after, nulls);
	/* an index on the scope may be better than the one on the key */
	poll_plan_run(&reader->source, *plan, reader->source.scope ? "enable_sort" : NULL,
				  nargs, args, types, &receiver.pub);
	SPI_finish();
	if (receiver.more)
	{
		page->next.key = receiver.last_key;
		page->next.keylen = receiver.last_keylen;
	}
	return receiver.more;
}
