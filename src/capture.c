/*
 * capture.c
 *		The row trigger, and the buffers that become chunks of the log.
 *
 * A log row per change would cost a heap insert, an index insert and some
 * 170 bytes of WAL.  So the trigger only appends (op, key) to a buffer in
 * backend memory, and the buffer becomes one chunk when it is full and when
 * the transaction ends.
 *
 * Levels.  There is a buffer per channel and level of subtransaction.  A
 * level only ever writes its own entries: the chunk of an inner level carries
 * the inner xid as its xmin, and disappears with it.  A level that aborts
 * drops its buffers; one that commits hands them to its parent, after writing
 * what would not fit there.  So at the end of the transaction, PRE_COMMIT or
 * PRE_PREPARE, all that is left is at the top level and is written.  Writes
 * that come later still, from another extension's callback, are written at
 * once.
 *
 * All buffers are in one list, ordered by level: those of the current level
 * are always at its end.
 *
 * Memory.  A buffer grows with its entries, to some 2 kB.  When all of them
 * have become too large (a transaction that touches tens of thousands of
 * channels, or nests as many savepoints), those of the current level are
 * written and begun anew.
 *
 * Order.  Versions are taken when a chunk is written, so entries of one key
 * may be logged out of order within a transaction.  That is harmless: they
 * become visible together, and a poll reads the row, not the entry.
 *
 * The trigger's argument is the id of its feed.  A trigger that does not
 * belong to a feed of its table logs nothing: it is a leftover (a restored
 * table without its registry), or somebody who would like to write into
 * another table's feed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "commands/trigger.h"
#include "lib/ilist.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "capture.h"
#include "catalog.h"
#include "changelog.h"
#include "key.h"
#include "shmem.h"
#include "tick.h"
#include "waiters.h"
#include "worker.h"

/* more than this, in all buffers, is written before the transaction ends */
#define MAX_BUFFER_BYTES	(16 * 1024 * 1024)

/* what a buffer begins with: many channels get but a few entries */
#define BUFFER_START_BYTES	128

/* memory that is not given back at the end of a transaction */
#define MAX_KEPT_MEMORY	(256 * 1024)

/* a buffer that a huge key has blown up is not kept */
#define MAX_KEPT_BYTES	8192

/* stale entries of the trigger cache are dropped when it has grown by so many */
#define MAX_STALE_TRIGGERS	64

/* of a trigger whose feed was not found out yet, perhaps for an error */
#define CHANNEL_UNKNOWN	(-1)

/* A capture trigger, by the trigger's oid. */
typedef struct PollTrigger
{
	Oid			tgoid;			/* hash key */
	Oid			relid;
	Oid			root;			/* the feed's table: relid, or what it is a
								 * partition of */
	bool		valid;			/* reset by the relcache callback */
	int64		channel;		/* the feed's; 0 = logs nothing */
	MemoryContext context;		/* holds what follows */
	PollKey    *key;
	PollKey    *scope;			/* NULL = none */
	StringInfoData last_scope;	/* the last row's */
	int64		last_channel;	/* and its channel; 0 = none */
	int			nwatched;		/* an UPDATE of none of these is no change */
	AttrNumber *watched;
} PollTrigger;

typedef struct PollBufferTag
{
	int64		channel;
	int64		level;
} PollBufferTag;

typedef struct PollBuffer
{
	PollBufferTag tag;			/* hash key */
	dlist_node	node;
	int			count;
	StringInfoData entries;
	int			counted;		/* of its bytes, in buffer_bytes */
} PollBuffer;

static HTAB *triggers = NULL;
static PollTrigger *last_trigger = NULL;	/* the one used last, or NULL */

/* the transaction's buffers; the memory stays for the next one */
static MemoryContext buffer_context = NULL;
static HTAB *buffer_hash;
static dlist_head buffer_list = DLIST_STATIC_INIT(buffer_list);
static PollBuffer *last_buffer = NULL;	/* the one used last, or NULL */
static Size buffer_bytes = 0;	/* of all buffers */
static StringInfoData key_text;
static List *empty_feeds = NIL; /* int64 *; see poll_capture_set_empty() */
static bool write_through = false;	/* no event will come to write it later */
static bool wrote = false;		/* any chunk in this transaction */

PG_FUNCTION_INFO_V1(poll_ext_capture);

/* ---- buffers ---- */

static void
buffers_create(void)
{
	HASHCTL		ctl;
	MemoryContext old;

	buffer_context = AllocSetContextCreate(TopMemoryContext, "poll_ext capture",
										   ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = sizeof(PollBufferTag);
	ctl.entrysize = sizeof(PollBuffer);
	ctl.hcxt = buffer_context;
	buffer_hash = hash_create("poll_ext buffers", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	old = MemoryContextSwitchTo(buffer_context);
	initStringInfo(&key_text);
	MemoryContextSwitchTo(old);
}

/* Counts what the buffer has grown or shrunk. */
static inline void
buffer_count(PollBuffer *buffer)
{
	int			bytes = sizeof(PollBuffer) + buffer->entries.maxlen;

	buffer_bytes += bytes - buffer->counted;
	buffer->counted = bytes;
}

static PollBuffer *
buffer_find(int64 channel, int level, bool create)
{
	PollBufferTag tag = {channel, level};
	PollBuffer *buffer;

	if (last_buffer != NULL && last_buffer->tag.channel == channel && last_buffer->tag.level == level)
		return last_buffer;

	buffer = hash_search(buffer_hash, &tag, HASH_FIND, NULL);
	if (buffer == NULL && create)
	{
		MemoryContext old = MemoryContextSwitchTo(buffer_context);
		StringInfoData entries;

		/* nothing may fail between entering it and completing it */
		entries.data = palloc(BUFFER_START_BYTES);
		entries.maxlen = BUFFER_START_BYTES;
		resetStringInfo(&entries);
		MemoryContextSwitchTo(old);
		buffer = hash_search(buffer_hash, &tag, HASH_ENTER, NULL);
		buffer->count = 0;
		buffer->entries = entries;
		buffer->counted = 0;
		buffer_count(buffer);
		dlist_push_tail(&buffer_list, &buffer->node);
	}
	return buffer;
}

static void
buffer_drop(PollBuffer *buffer)
{
	if (last_buffer == buffer)
		last_buffer = NULL;
	buffer_bytes -= buffer->counted;
	dlist_delete(&buffer->node);
	pfree(buffer->entries.data);
	hash_search(buffer_hash, &buffer->tag, HASH_REMOVE, NULL);
}

/* Empties it, and gives back what a huge key took. */
static void
reset_string(StringInfo str)
{
	resetStringInfo(str);
	if (str->maxlen > MAX_KEPT_BYTES)
	{
		str->data = repalloc(str->data, MAX_KEPT_BYTES);
		str->maxlen = MAX_KEPT_BYTES;
	}
}

/* At the end of the transaction: will it commit asynchronously? */
static void
note_async(void)
{
	if (wrote && synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		poll_async_raise(U64FromFullTransactionId(GetTopFullTransactionId()));
}

static void
buffer_write(PollBuffer *buffer)
{
	if (buffer->count == 0)
		return;
	wrote = true;
	poll_changelog_write(buffer->tag.channel, buffer->count,
						 buffer->entries.data, buffer->entries.len);
	buffer->count = 0;
	reset_string(&buffer->entries);
	buffer_count(buffer);
	if (write_through)
		note_async();
}

static inline bool
fits(const PollBuffer *buffer, int count, int bytes)
{
	return buffer->count + count <= POLL_CHUNK_ENTRIES &&
		buffer->entries.len + bytes <= POLL_CHUNK_BYTES;
}

/* The last buffer of the list if it is of that level. */
static PollBuffer *
buffer_of_level(int level)
{
	PollBuffer *buffer;

	if (dlist_is_empty(&buffer_list))
		return NULL;
	buffer = dlist_tail_element(PollBuffer, node, &buffer_list);
	return buffer->tag.level == level ? buffer : NULL;
}

/* Writes and drops the buffers of a level, which must be the current one. */
static void
level_write(int level)
{
	PollBuffer *buffer;

	while ((buffer = buffer_of_level(level)) != NULL)
	{
		buffer_write(buffer);
		buffer_drop(buffer);
	}
}

/* Adds the key in key_text. */
static void
buffer_add(int64 channel, PollOp op)
{
	int			level = GetCurrentTransactionNestLevel();
	PollBuffer *buffer = buffer_find(channel, level, true);

	last_buffer = buffer;
	if (!fits(buffer, 1, key_text.len + 4))
		buffer_write(buffer);
	poll_entry_append(&buffer->entries, op, key_text.data, key_text.len);
	buffer->count++;
	buffer_count(buffer);
	if (write_through || buffer_bytes > MAX_BUFFER_BYTES)
		level_write(level);
}

/*
 * An entry that is about the whole feed.  It is written at once: what follows
 * must have later versions, while for what came before the order does not
 * matter, since a poll looks at the rows.
 */
void
poll_capture_barrier(int64 channel, PollOp op, const char *payload, int len)
{
	PollBuffer *buffer;

	if (buffer_context == NULL)
		buffers_create();
	buffer = buffer_find(channel, GetCurrentTransactionNestLevel(), true);
	if (!fits(buffer, 1, len + 4))
		buffer_write(buffer);
	poll_entry_append(&buffer->entries, op, payload, len);
	buffer->count++;
	buffer_write(buffer);
}

bool
poll_capture_is_empty(int64 feed)
{
	ListCell   *lc;

	foreach(lc, empty_feeds)
		if (*(int64 *) lfirst(lc) == feed)
		return true;
	return false;
}

void
poll_capture_set_empty(int64 feed)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	int64	   *entry = palloc(sizeof(int64));

	*entry = feed;
	empty_feeds = lappend(empty_feeds, entry);
	MemoryContextSwitchTo(old);
}

static void
set_not_empty(int64 feed)
{
	ListCell   *lc;

	foreach(lc, empty_feeds)
	{
		if (*(int64 *) lfirst(lc) == feed)
			empty_feeds = foreach_delete_current(empty_feeds, lc);
	}
}

/* ---- transaction callbacks ---- */

static void
forget_all(bool failed)
{
	last_buffer = NULL;
	empty_feeds = NIL;
	write_through = false;
	wrote = false;
	if (buffer_context == NULL)
		return;
	if (failed || MemoryContextMemAllocated(buffer_context, true) > MAX_KEPT_MEMORY)
	{
		/* an error may have come in the middle of anything */
		dlist_init(&buffer_list);
		MemoryContextDelete(buffer_context);
		buffer_context = NULL;
		buffer_bytes = 0;
	}
	else
		while (!dlist_is_empty(&buffer_list))
			buffer_drop(dlist_tail_element(PollBuffer, node, &buffer_list));
}

static void
write_all(void)
{
	dlist_iter	iter;

	/* this transaction may have dropped the extension */
	if ((wrote || !dlist_is_empty(&buffer_list)) && !poll_catalog_exists())
	{
		forget_all(false);
		return;
	}
	dlist_foreach(iter, &buffer_list)
		buffer_write(dlist_container(PollBuffer, node, iter.cur));
	write_through = true;
	note_async();
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			write_all();
			if (wrote)
			{
				poll_worker_note_flush();
				poll_tick_at_flush();
			}
			break;
		case XACT_EVENT_PRE_PREPARE:
			write_all();
			break;
		case XACT_EVENT_COMMIT:
			if (wrote)
				poll_worker_at_commit();
			poll_waiters_wake();
			forget_all(false);
			break;
		case XACT_EVENT_PREPARE:
			poll_waiters_forget();
			forget_all(false);
			break;
		case XACT_EVENT_ABORT:
			poll_waiters_forget();
			forget_all(true);
			break;
		default:
			break;
	}
}

/*
 * Before a level commits, while it can still fail: write what does not fit
 * into the parent's buffers, and make room there for the rest.
 */
static void
level_will_commit(int level)
{
	dlist_node *node;

	if (dlist_is_empty(&buffer_list))
		return;
	for (node = dlist_tail_node(&buffer_list);; node = dlist_prev_node(&buffer_list, node))
	{
		PollBuffer *buffer = dlist_container(PollBuffer, node, node);
		PollBuffer *parent;

		if (buffer->tag.level != level)
			break;
		parent = buffer_find(buffer->tag.channel, level - 1, false);
		if (parent != NULL && !fits(parent, buffer->count, buffer->entries.len))
			buffer_write(buffer);
		else if (parent != NULL)
		{
			enlargeStringInfo(&parent->entries, buffer->entries.len);
			buffer_count(parent);
		}
		if (!dlist_has_prev(&buffer_list, node))
			break;
	}
}

static void
level_committed(int level)
{
	PollBuffer *buffer;
	dlist_head	handed = DLIST_STATIC_INIT(handed);

	last_buffer = NULL;
	while ((buffer = buffer_of_level(level)) != NULL)
	{
		PollBufferTag tag = {buffer->tag.channel, level - 1};
		PollBuffer *parent = buffer_find(tag.channel, tag.level, false);

		if (parent != NULL)
		{
			appendBinaryStringInfo(&parent->entries, buffer->entries.data, buffer->entries.len);
			parent->count += buffer->count;
			buffer_drop(buffer);
		}
		else
		{
			dlist_delete(&buffer->node);
			dlist_push_head(&handed, &buffer->node);
			if (!hash_update_hash_key(buffer_hash, buffer, &tag))
				elog(ERROR, "two buffers of one channel and level");
		}
	}
	while (!dlist_is_empty(&handed))
		dlist_push_tail(&buffer_list, dlist_pop_head_node(&handed));
}

static void
level_aborted(int level)
{
	PollBuffer *buffer;

	empty_feeds = NIL;
	while ((buffer = buffer_of_level(level)) != NULL)
		buffer_drop(buffer);
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mySubid,
				 SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	switch (event)
	{
		case SUBXACT_EVENT_PRE_COMMIT_SUB:
			level_will_commit(level);
			break;
		case SUBXACT_EVENT_COMMIT_SUB:
			level_committed(level);
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			level_aborted(level);
			break;
		default:
			break;
	}
}

void
poll_capture_install(void)
{
	/*
	 * If it is this transaction that loads the library, its PRE_COMMIT may be
	 * under way already, and we would not be called.
	 */
	write_through = IsTransactionState();
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}

/* ---- the trigger ---- */

void
poll_capture_invalidate(Oid relid)
{
	HASH_SEQ_STATUS status;
	PollTrigger *trigger;

	if (triggers == NULL)
		return;
	hash_seq_init(&status, triggers);
	while ((trigger = hash_seq_search(&status)) != NULL)
		if (!OidIsValid(relid) || trigger->relid == relid || trigger->root == relid)
			trigger->valid = false;
}

/* The feed that the trigger of rel belongs to. */
bool
poll_capture_feed(Trigger *trigger, Relation rel, PollFeed *feed)
{
	if (trigger->tgnargs != 1 ||
		!poll_catalog_find_id(strtoi64(trigger->tgargs[0], NULL, 10), feed))
		return false;
	return feed->relid == RelationGetRelid(rel) ||
		(rel->rd_rel->relispartition &&
		 list_member_oid(get_partition_ancestors(RelationGetRelid(rel)), feed->relid));
}

/* Somebody up the stack may be using the key: it goes with the transaction. */
static void
trigger_retire(PollTrigger *entry)
{
	if (entry->context != NULL)
		MemoryContextSetParent(entry->context, TopTransactionContext);
	entry->context = NULL;
	entry->key = NULL;
}

/* The columns that the feed shows, or all. */
static void
watch_columns(PollTrigger *entry, Relation rel, List *columns)
{
	TupleDesc	desc = RelationGetDescr(rel);
	ListCell   *lc;

	entry->watched = palloc(sizeof(AttrNumber) * Max(desc->natts, list_length(columns)));
	entry->nwatched = 0;
	foreach(lc, columns)
		entry->watched[entry->nwatched++] = poll_key_attnum(rel, lfirst(lc));
	for (int i = 0; columns == NIL && i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			entry->watched[entry->nwatched++] = i + 1;
}

static void
trigger_build(PollTrigger *entry, Trigger *trigger, Relation rel)
{
	MemoryContext old;
	PollFeed	feed;
	Relation	root;
	List	   *columns;
	List	   *scope;

	trigger_retire(entry);
	entry->relid = entry->root = RelationGetRelid(rel);
	entry->valid = true;		/* until an invalidation, from here on */
	entry->channel = CHANNEL_UNKNOWN;
	entry->channel = poll_capture_feed(trigger, rel, &feed) ? feed.id : 0;
	if (entry->channel == 0)
		return;
	entry->context = AllocSetContextCreate(TopMemoryContext, "poll_ext trigger",
										   ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(entry->context);
	poll_catalog_lists(feed.id, &columns, &scope);
	watch_columns(entry, rel, columns);
	entry->scope = scope == NIL ? NULL : poll_key_of_columns(rel, scope);
	initStringInfo(&entry->last_scope);
	entry->last_channel = 0;
	entry->root = feed.relid;
	root = table_open(feed.relid, AccessShareLock);
	entry->key = poll_key_build(root);
	poll_key_map(entry->key, root, rel);
	table_close(root, AccessShareLock);
	MemoryContextSwitchTo(old);
}

/* Makes room: of tables that were dropped or changed since. */
static void
forget_stale_triggers(void)
{
	HASH_SEQ_STATUS status;
	PollTrigger *entry;

	last_trigger = NULL;
	hash_seq_init(&status, triggers);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (!entry->valid)
		{
			trigger_retire(entry);
			hash_search(triggers, &entry->tgoid, HASH_REMOVE, NULL);
		}
}

static PollTrigger *
trigger_enter(Oid tgoid)
{
	PollTrigger *entry;
	HASHCTL		ctl;

	if (triggers == NULL)
	{
		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(PollTrigger);
		triggers = hash_create("poll_ext triggers", 32, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	else if (hash_get_num_entries(triggers) % MAX_STALE_TRIGGERS == MAX_STALE_TRIGGERS - 1)
		forget_stale_triggers();
	entry = hash_search(triggers, &tgoid, HASH_ENTER, NULL);
	entry->valid = false;
	entry->channel = CHANNEL_UNKNOWN;
	entry->key = NULL;
	entry->context = NULL;
	return entry;
}

static PollTrigger *
trigger_find(Trigger *trigger, Relation rel)
{
	PollTrigger *entry = last_trigger;

	if (entry == NULL || entry->tgoid != trigger->tgoid)
	{
		entry = triggers ? hash_search(triggers, &trigger->tgoid, HASH_FIND, NULL) : NULL;
		if (entry == NULL)
			entry = trigger_enter(trigger->tgoid);
		last_trigger = entry;
	}
	/* a key that is missing where there should be one: building it failed */
	if (!entry->valid || (entry->channel != 0 && entry->key == NULL))
		trigger_build(entry, trigger, rel);
	return entry;
}

static bool
columns_equal(TupleDesc desc, AttrNumber attnum, TupleTableSlot *a, TupleTableSlot *b)
{
	Form_pg_attribute att = TupleDescAttr(desc, attnum - 1);
	bool		oldnull;
	bool		newnull;
	Datum		old = slot_getattr(a, attnum, &oldnull);
	Datum		new = slot_getattr(b, attnum, &newnull);

	return oldnull == newnull &&
		(oldnull || datum_image_eq(old, new, att->attbyval, att->attlen));
}

/* Does the UPDATE change nothing that the feed shows? */
static bool
rows_equal(const PollTrigger *trigger, TriggerData *trigdata)
{
	HeapTupleHeader old = trigdata->tg_trigtuple->t_data;
	HeapTupleHeader new = trigdata->tg_newtuple->t_data;

	if (trigdata->tg_trigtuple->t_len == trigdata->tg_newtuple->t_len &&
		old->t_hoff == new->t_hoff &&
		HeapTupleHeaderGetNatts(old) == HeapTupleHeaderGetNatts(new) &&
		(old->t_infomask & ~HEAP_XACT_MASK) == (new->t_infomask & ~HEAP_XACT_MASK) &&
		memcmp((char *) old + SizeofHeapTupleHeader, (char *) new + SizeofHeapTupleHeader,
			   trigdata->tg_newtuple->t_len - SizeofHeapTupleHeader) == 0)
		return true;

	for (int i = 0; i < trigger->nwatched; i++)
		if (!columns_equal(RelationGetDescr(trigdata->tg_relation), trigger->watched[i],
						   trigdata->tg_trigslot, trigdata->tg_newslot))
			return false;
	return true;
}

/* Is a key or a scope the same before and after an UPDATE? */
static bool
keys_equal(const PollKey *key, TriggerData *trigdata)
{
	for (int i = 0; i < key->ncolumns; i++)
		if (!columns_equal(RelationGetDescr(trigdata->tg_relation), key->columns[i].attnum,
						   trigdata->tg_trigslot, trigdata->tg_newslot))
			return false;
	return true;
}

/* The channel of the scope in key_text; many rows in a row may have the same. */
static int64
scope_channel(PollTrigger *trigger)
{
	StringInfo	last = &trigger->last_scope;

	if (trigger->last_channel == 0 || last->len != key_text.len ||
		memcmp(last->data, key_text.data, last->len) != 0)
	{
		trigger->last_channel = 0;
		reset_string(last);
		appendBinaryStringInfo(last, key_text.data, key_text.len);
		trigger->last_channel = poll_scope_channel(trigger->channel, last->data, last->len);
	}
	return trigger->last_channel;
}

static void
log_change(PollTrigger *trigger, PollOp op, TupleTableSlot *slot)
{
	int64		channel = trigger->channel;

	if (empty_feeds != NIL)
		set_not_empty(channel);
	reset_string(&key_text);
	if (trigger->scope != NULL)
	{
		poll_scope_append(&key_text, trigger->scope, slot);
		channel = scope_channel(trigger);
		resetStringInfo(&key_text);
	}
	poll_key_append(&key_text, trigger->key, slot);
	buffer_add(channel, op);
}

static void
log_update(PollTrigger *trigger, TriggerData *trigdata)
{
	bool		moved = !keys_equal(trigger->key, trigdata) ||
	(trigger->scope != NULL && !keys_equal(trigger->scope, trigdata));

	if (moved)
		log_change(trigger, POLL_OP_DELETE, trigdata->tg_trigslot);
	if (moved || !rows_equal(trigger, trigdata))
		log_change(trigger, POLL_OP_UPSERT, trigdata->tg_newslot);
}

/* AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW; argument: the feed's id. */
Datum
poll_ext_capture(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	PollTrigger *trigger;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s.capture\" was not called as an AFTER ROW trigger", POLL_SCHEMA),
				 errhint("Use poll.track() to create the trigger.")));

	trigger = trigger_find(trigdata->tg_trigger, trigdata->tg_relation);
	if (trigger->channel == 0)
		return PointerGetDatum(NULL);
	if (buffer_context == NULL)
		buffers_create();

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		log_change(trigger, POLL_OP_UPSERT, trigdata->tg_trigslot);
	else if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		log_change(trigger, POLL_OP_DELETE, trigdata->tg_trigslot);
	else
		log_update(trigger, trigdata);
	return PointerGetDatum(NULL);
}
