/*
 * feedset.c
 *		The feeds that a request names, checked for its caller.
 *
 * A poll that finds nothing must cost next to nothing, so each backend keeps
 * the lists of feeds that were asked for, by user, with names resolved and
 * privileges checked.  The lists are forgotten when anything changes that
 * they depend on (poll_catalog_generation()).  A feed that the caller may not
 * read is as unknown as one that is not there.
 *
 * A snapshot must show the transaction that tracked a feed.  Rows written
 * before that were not captured, so a sync under an older snapshot would miss
 * them; and a transaction's own changes are never shown to it, so it cannot
 * poll a feed that it has just tracked.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "error.h"
#include "feedset.h"
#include "key.h"
#include "scope.h"
#include "segment.h"
#include "shmem.h"
#include "timeline.h"

/* looking up a list is tried so often while things change all the time */
#define MAX_TRIES			5

/* the lists are forgotten when there are more, or when they take more */
#define MAX_CACHED_SETS		256
#define MAX_CACHED_BYTES	(1024 * 1024)

/* the part of a cursor's request hash that tells other feeds from other scopes */
#define NAMES_MASK			0xff000000

typedef struct CachedSetTag
{
	uint64		hash;			/* of the selection */
	uint64		userid;			/* no Oid: the bytes are compared, padding too */
} CachedSetTag;

typedef struct CachedSet
{
	CachedSetTag tag;			/* hash key */
	PollSelection selection;	/* names NULL until complete */
	PollFeedSet *set;
} CachedSet;

static MemoryContext set_context = NULL;
static HTAB *sets = NULL;
static CachedSet *last_set = NULL;	/* the one used last, or NULL */
static uint64 sets_generation = 0;
static Size sets_bytes = 0;

static void
forget_sets(void)
{
	HASHCTL		ctl;

	if (set_context != NULL)
		MemoryContextDelete(set_context);
	set_context = NULL;
	sets = NULL;
	last_set = NULL;
	sets_bytes = 0;
	set_context = AllocSetContextCreate(TopMemoryContext, "poll_ext feed sets",
										ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = sizeof(CachedSetTag);
	ctl.entrysize = sizeof(CachedSet);
	ctl.hcxt = set_context;
	sets = hash_create("poll_ext feed sets", MAX_CACHED_SETS, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	sets_generation = poll_catalog_generation();
}

/* Adds the columns' numbers to the list; false if one is gone. */
static bool
add_columns(Oid relid, List *names, List **attnums)
{
	ListCell   *lc;

	foreach(lc, names)
	{
		AttrNumber	attnum = get_attnum(relid, lfirst(lc));

		if (attnum == InvalidAttrNumber)
			return false;
		*attnums = lappend_int(*attnums, attnum);
	}
	return true;
}

/* Does a feed that shows some columns show only what the user may SELECT? */
static bool
may_read_columns(const PollFeed *feed, Oid userid)
{
	Relation	rel;
	List	   *columns;
	List	   *scope;
	List	   *attnums = NIL;
	ListCell   *lc;
	bool		may = true;

	poll_catalog_lists(feed->id, &columns, &scope);
	if (!add_columns(feed->relid, columns, &attnums) || !add_columns(feed->relid, scope, &attnums))
		return false;
	rel = try_relation_open(feed->relid, AccessShareLock);
	if (rel == NULL)
		return false;
	if (OidIsValid(poll_key_index(rel)))
	{
		PollKey    *key = poll_key_build(rel);

		for (int i = 0; i < key->ncolumns; i++)
			attnums = lappend_int(attnums, key->columns[i].attnum);
	}
	/* those who may not must not be able to lock it */
	relation_close(rel, AccessShareLock);
	foreach(lc, attnums)
		may = may &&
		pg_attribute_aclcheck(feed->relid, lfirst_int(lc), userid, ACL_SELECT) == ACLCHECK_OK;
	return may;
}

/*
 * USAGE on the schema and SELECT on the table, on each of its columns or, if
 * the feed shows only some, on those, the key and the scope?
 */
static bool
may_read(const PollFeed *feed)
{
	Oid			userid = GetUserId();
	bool		gone = false;
	Oid			nspid = get_rel_namespace(feed->relid);

	if (!OidIsValid(nspid) || !poll_compat_uses_schema(nspid, userid))
		return false;
	if (pg_class_aclcheck_ext(feed->relid, userid, ACL_SELECT, &gone) == ACLCHECK_OK)
		return true;
	if (gone)
		return false;
	return feed->projected ? may_read_columns(feed, userid) :
		pg_attribute_aclcheck_all(feed->relid, userid, ACL_SELECT, ACLMASK_ALL) == ACLCHECK_OK;
}

static int
cmp_cstring(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* The names of the array, sorted, each once; returns how many. */
static int
sorted_names(ArrayType *array, char ***result)
{
	Datum	   *elements;
	bool	   *nulls;
	int			nelements;
	int			n = 0;
	char	  **names;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &nelements);
	if (nelements == 0 || nelements > POLL_MAX_FEEDS)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("the list of feeds must have 1 to %d names", POLL_MAX_FEEDS)));
	names = palloc(sizeof(char *) * nelements);
	for (int i = 0; i < nelements; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_POLL_BAD_REQUEST),
					 errmsg("the list of feeds must not contain nulls")));
		names[i] = TextDatumGetCString(elements[i]);
	}
	qsort(names, nelements, sizeof(char *), cmp_cstring);
	for (int i = 0; i < nelements; i++)
		if (n == 0 || strcmp(names[n - 1], names[i]) != 0)
			names[n++] = names[i];
	*result = names;
	return n;
}

/* A transaction that takes no new lock hears late of a feed that is new. */
static bool
find_feed(const char *name, PollFeed *feed)
{
	if (poll_catalog_find(name, feed))
		return true;
	AcceptInvalidationMessages();
	return poll_catalog_find(name, feed);
}

static PollFeedSet *
resolve(const PollSelection *selection)
{
	char	  **names;
	int			n = sorted_names(selection->names, &names);
	Size		fixed = offsetof(PollFeedSet, members) + n * sizeof(PollMember);
	PollFeedSet *set = palloc0(fixed);
	List	   *used = NIL;		/* scope columns */
	uint32		names_hash = 0;
	uint32		scope_hash = 0;
	StringInfoData rest;		/* what stands behind the members */

	initStringInfo(&rest);
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoChar(&rest, ',');
		escape_json(&rest, names[i]);
		appendStringInfoString(&rest, ":[]");
	}
	set->empty = fixed;
	set->empty_len = rest.len;
	set->n = n;

	for (int i = 0; i < n; i++)
	{
		PollMember *member = &set->members[i];

		if (!find_feed(names[i], &member->feed) || !may_read(&member->feed))
			ereport(ERROR,
					(errcode(ERRCODE_POLL_NOT_FOUND),
					 errmsg("unknown feed"),
					 errdetail("There is no feed \"%s\", or you may not read its table.", names[i]),
					 errhint("The feeds that you may read are in the view poll.feeds.")));
		member->row_security = check_enable_rls(member->feed.relid, InvalidOid, true);
		member->streams[member->nstreams++].channel = member->feed.id;
		if (member->feed.scoped)
		{
			member->scope = fixed + rest.len;
			set->ids_hash = hash_combine(set->ids_hash,
										 poll_scope_of_request(&rest, &member->feed,
															   selection->scope, &used));
			member->scope_len = (int) (fixed + rest.len - member->scope);
			member->streams[member->nstreams++].channel =
				poll_scope_channel(member->feed.id, rest.data + (member->scope - fixed),
								   member->scope_len);
		}
		names_hash = hash_combine(names_hash,
								  hash_bytes((unsigned char *) names[i], strlen(names[i]) + 1));
		scope_hash = hash_combine(scope_hash,
								  hash_bytes((unsigned char *) rest.data + rest.len - member->scope_len,
											 member->scope_len));
		set->ids_hash = hash_combine(set->ids_hash,
									 hash_bytes((unsigned char *) &member->feed.id, sizeof(int64)));
		/* a restore may bring the id again */
		set->ids_hash = hash_combine(set->ids_hash, member->feed.stamp);
	}
	set->request_hash = (names_hash & NAMES_MASK) | (scope_hash & ~NAMES_MASK);
	poll_scope_check_used(selection->scope, used);

	set = repalloc(set, fixed + rest.len);
	memcpy((char *) set + fixed, rest.data, rest.len);
	set->size = fixed + rest.len;
	return set;
}

/* Errors if the snapshot does not show that the feeds were tracked. */
static void
check_shown(const PollFeedSet *set, Snapshot snapshot)
{
	for (int i = 0; i < set->n; i++)
	{
		TransactionId xmin = set->members[i].feed.xmin;

		if (!TransactionIdIsNormal(xmin) || TransactionIdPrecedes(xmin, snapshot->xmin))
			continue;
		if (TransactionIdIsCurrentTransactionId(xmin))
			ereport(ERROR,
					(errcode(ERRCODE_POLL_NOT_FOUND),
					 errmsg("this transaction has just tracked a feed that it asks for"),
					 errdetail("Feed \"%s\".", NameStr(set->members[i].feed.name)),
					 errhint("Commit first.")));
		if (XidInMVCCSnapshot(xmin, snapshot))
			ereport(ERROR,
					(errcode(ERRCODE_POLL_NOT_FOUND),
					 errmsg("a feed was tracked after the snapshot of this transaction was taken"),
					 errdetail("Feed \"%s\".", NameStr(set->members[i].feed.name)),
					 errhint("Poll in a new transaction.")));
	}
}

static CachedSetTag
make_tag(const PollSelection *selection)
{
	CachedSetTag tag = {
		hash_bytes_extended((unsigned char *) selection->names, VARSIZE(selection->names), 0),
		GetUserId()
	};

	if (selection->scope != NULL)
		tag.hash = hash_bytes_extended((unsigned char *) selection->scope,
									   VARSIZE(selection->scope), tag.hash);
	return tag;
}

static bool
same_value(const void *a, const void *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}

static Size
value_size(const void *value)
{
	return value ? VARSIZE(value) : 0;
}

static void *
copy_value(const void *value)
{
	return value ? memcpy(palloc(VARSIZE(value)), value, VARSIZE(value)) : NULL;
}

static bool
is_set_of(const CachedSet *cached, const PollSelection *selection)
{
	return cached != NULL && cached->selection.names != NULL &&
		cached->tag.userid == GetUserId() &&
		same_value(cached->selection.names, selection->names) &&
		same_value(cached->selection.scope, selection->scope);
}

/* The valid entry for these names, or NULL. */
static CachedSet *
find_set(const PollSelection *selection)
{
	CachedSetTag tag;
	CachedSet  *cached;

	if (sets == NULL || sets_generation != poll_catalog_generation())
		return NULL;
	if (is_set_of(last_set, selection))
		return last_set;
	tag = make_tag(selection);
	cached = hash_search(sets, &tag, HASH_FIND, NULL);
	if (!is_set_of(cached, selection))
		return NULL;
	last_set = cached;
	return cached;
}

PollFeedSet *
poll_feedset_get(const PollSelection *selection, Snapshot snapshot)
{
	CachedSet  *cached = find_set(selection);

	if (cached == NULL)
	{
		CachedSetTag tag = make_tag(selection);
		PollFeedSet *set;
		MemoryContext old;
		Size		bytes;
		uint64		before;
		int			tries = 0;

		/* looking things up may itself bring news of them */
		do
		{
			before = poll_catalog_generation();
			set = resolve(selection);
		} while (before != poll_catalog_generation() && ++tries < MAX_TRIES);
		check_shown(set, snapshot);
		bytes = set->size + value_size(selection->names) + value_size(selection->scope);
		if (tries == MAX_TRIES || bytes > MAX_CACHED_BYTES / 2)
			return set;			/* as of a moment ago, or not worth keeping */

		if (sets == NULL || sets_generation != before ||
			hash_get_num_entries(sets) >= MAX_CACHED_SETS ||
			sets_bytes + bytes > MAX_CACHED_BYTES)
			forget_sets();
		sets_bytes += bytes;
		cached = hash_search(sets, &tag, HASH_ENTER, NULL);
		cached->selection.names = NULL;
		old = MemoryContextSwitchTo(set_context);
		cached->set = poll_feedset_copy(set);
		cached->selection.scope = copy_value(selection->scope);
		cached->selection.names = copy_value(selection->names);
		MemoryContextSwitchTo(old);
		return cached->set;
	}
	check_shown(cached->set, snapshot);
	return cached->set;
}

PollFeedSet *
poll_feedset_copy(const PollFeedSet *set)
{
	return memcpy(palloc(set->size), set, set->size);
}

void
poll_feedset_learn(const PollSelection *selection, const PollFeedSet *copy)
{
	CachedSet  *cached = find_set(selection);

	if (cached == NULL || cached->set->ids_hash != copy->ids_hash)
		return;
	for (int i = 0; i < copy->n; i++)
		memcpy(cached->set->members[i].streams, copy->members[i].streams,
			   sizeof(copy->members[i].streams));
}

bool
poll_stream_quiet(const PollStream *stream, uint64 x)
{
	uint64		flushed = poll_flushed_read(stream->channel);

	if (flushed < x)
		return true;
	return stream->flushed == flushed && flushed != PG_UINT64_MAX && stream->quiet_from <= x;
}

bool
poll_feedset_quiet(const PollFeedSet *set, uint64 x)
{
	for (int i = 0; i < set->n; i++)
		for (int j = 0; j < set->members[i].nstreams; j++)
			if (!poll_stream_quiet(&set->members[i].streams[j], x))
				return false;
	return true;
}

void
poll_feedset_stamp(const PollFeedSet *set, PollCursor *cursor)
{
	cursor->epoch = poll_catalog_epoch();
	cursor->feeds = set->request_hash;
	cursor->generation = set->ids_hash;
}

static void
other_request(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_POLL_BAD_REQUEST),
			 errmsg("the cursor belongs to other feeds or another scope"),
			 errhint("A cursor goes on with exactly the feeds and the scope that it came from.")));
}

void
poll_feedset_cursor(const PollFeedSet *set, text *str, PollCursor *cursor)
{
	uint32		differs;

	if (!poll_cursor_decode(VARDATA_ANY(str), VARSIZE_ANY_EXHDR(str), cursor))
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("invalid cursor"),
				 errhint("Pass a cursor as it came, 'now', or none to start with a full sync. A time is the argument since.")));
	differs = cursor->feeds ^ set->request_hash;
	if ((differs & NAMES_MASK) != 0 ||
		(cursor->sync && cursor->sync_feed >= (uint32) set->n))
		other_request();
	poll_timeline_adopt(cursor);
	if (cursor->generation != set->ids_hash)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_EXPIRED),
				 errmsg("the cursor has expired"),
				 errdetail("A feed was untracked and tracked again, or its scope has got another type."),
				 errhint("Poll without a cursor for a full sync.")));
	if (differs != 0)
		other_request();
	poll_segment_check(cursor);
}
