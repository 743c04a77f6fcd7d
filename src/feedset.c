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

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "error.h"
#include "feedset.h"
#include "shmem.h"

/* looking up a list is tried so often while things change all the time */
#define MAX_TRIES			5

/* the lists are forgotten when there are more */
#define MAX_CACHED_SETS		64

typedef struct CachedSetTag
{
	uint64		hash;			/* of the array */
	uint64		userid;			/* no Oid: the bytes are compared, padding too */
} CachedSetTag;

typedef struct CachedSet
{
	CachedSetTag tag;			/* hash key */
	ArrayType  *names;			/* NULL until complete */
	PollFeedSet *set;
} CachedSet;

static MemoryContext set_context = NULL;
static HTAB *sets = NULL;
static CachedSet *last_set = NULL;	/* the one used last, or NULL */
static uint64 sets_generation = 0;

static void
forget_sets(void)
{
	HASHCTL		ctl;

	if (set_context != NULL)
		MemoryContextDelete(set_context);
	set_context = NULL;
	sets = NULL;
	last_set = NULL;
	set_context = AllocSetContextCreate(TopMemoryContext, "poll_ext feed sets",
										ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = sizeof(CachedSetTag);
	ctl.entrysize = sizeof(CachedSet);
	ctl.hcxt = set_context;
	sets = hash_create("poll_ext feed sets", MAX_CACHED_SETS, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	sets_generation = poll_catalog_generation();
}

/* SELECT on the table or on each of its columns, and USAGE on its schema? */
static bool
may_read(Oid relid)
{
	Oid			userid = GetUserId();
	bool		gone = false;
	Oid			nspid = get_rel_namespace(relid);

	if (!OidIsValid(nspid) || !poll_compat_uses_schema(nspid, userid))
		return false;
	if (pg_class_aclcheck_ext(relid, userid, ACL_SELECT, &gone) == ACLCHECK_OK)
		return true;
	return !gone &&
		pg_attribute_aclcheck_all(relid, userid, ACL_SELECT, ACLMASK_ALL) == ACLCHECK_OK;
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

static PollFeedSet *
resolve(ArrayType *array)
{
	char	  **names;
	int			n = sorted_names(array, &names);
	StringInfoData empty;
	PollFeedSet *set;

	initStringInfo(&empty);
	set = palloc0(offsetof(PollFeedSet, members) + n * sizeof(PollMember));
	set->n = n;
	for (int i = 0; i < n; i++)
	{
		PollMember *member = &set->members[i];

		if (!poll_catalog_find(names[i], &member->feed) || !may_read(member->feed.relid))
			ereport(ERROR,
					(errcode(ERRCODE_POLL_NOT_FOUND),
					 errmsg("unknown feed"),
					 errdetail("There is no feed \"%s\", or you may not read its table.", names[i]),
					 errhint("The feeds that you may read are in the view poll.feeds.")));
		set->names_hash = hash_combine(set->names_hash,
									   hash_bytes((unsigned char *) names[i], strlen(names[i]) + 1));
		set->ids_hash = hash_combine(set->ids_hash,
									 hash_bytes((unsigned char *) &member->feed.id, sizeof(int64)));
		if (i > 0)
			appendStringInfoChar(&empty, ',');
		escape_json(&empty, names[i]);
		appendStringInfoString(&empty, ":[]");
	}

	set = repalloc(set, offsetof(PollFeedSet, members) + n * sizeof(PollMember) + empty.len);
	set->empty_len = empty.len;
	memcpy(poll_feedset_empty(set), empty.data, empty.len);
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
make_tag(ArrayType *names)
{
	CachedSetTag tag = {
		hash_bytes_extended((unsigned char *) names, VARSIZE(names), 0), GetUserId()
	};

	return tag;
}

static bool
is_set_of(const CachedSet *cached, ArrayType *names)
{
	return cached != NULL && cached->names != NULL && cached->tag.userid == GetUserId() &&
		VARSIZE(cached->names) == VARSIZE(names) &&
		memcmp(cached->names, names, VARSIZE(names)) == 0;
}

/* The valid entry for these names, or NULL. */
static CachedSet *
find_set(ArrayType *names)
{
	CachedSetTag tag;
	CachedSet  *cached;

	if (sets == NULL || sets_generation != poll_catalog_generation())
		return NULL;
	if (is_set_of(last_set, names))
		return last_set;
	tag = make_tag(names);
	cached = hash_search(sets, &tag, HASH_FIND, NULL);
	if (!is_set_of(cached, names))
		return NULL;
	last_set = cached;
	return cached;
}

PollFeedSet *
poll_feedset_get(ArrayType *names, Snapshot snapshot)
{
	CachedSet  *cached = find_set(names);

	if (cached == NULL)
	{
		CachedSetTag tag = make_tag(names);
		PollFeedSet *set;
		MemoryContext old;
		uint64		before;
		int			tries = 0;

		/* looking things up may itself bring news of them */
		do
		{
			before = poll_catalog_generation();
			set = resolve(names);
		} while (before != poll_catalog_generation() && ++tries < MAX_TRIES);
		check_shown(set, snapshot);
		if (tries == MAX_TRIES)
			return set;			/* as of a moment ago; not worth keeping */

		if (sets == NULL || sets_generation != before ||
			hash_get_num_entries(sets) >= MAX_CACHED_SETS)
			forget_sets();
		cached = hash_search(sets, &tag, HASH_ENTER, NULL);
		cached->names = NULL;
		old = MemoryContextSwitchTo(set_context);
		cached->set = poll_feedset_copy(set);
		cached->names = memcpy(palloc(VARSIZE(names)), names, VARSIZE(names));
		MemoryContextSwitchTo(old);
		return cached->set;
	}
	check_shown(cached->set, snapshot);
	return cached->set;
}

PollFeedSet *
poll_feedset_copy(const PollFeedSet *set)
{
	Size		size = offsetof(PollFeedSet, members) + set->n * sizeof(PollMember) + set->empty_len;

	return memcpy(palloc(size), set, size);
}

void
poll_feedset_learn(ArrayType *names, const PollFeedSet *copy)
{
	CachedSet  *cached = find_set(names);

	if (cached == NULL || cached->set->ids_hash != copy->ids_hash)
		return;
	for (int i = 0; i < copy->n; i++)
	{
		cached->set->members[i].flushed = copy->members[i].flushed;
		cached->set->members[i].quiet_from = copy->members[i].quiet_from;
	}
}

bool
poll_member_quiet(const PollMember *member, uint64 x)
{
	uint64		flushed = poll_flushed_read(member->feed.id);

	if (flushed < x)
		return true;
	return member->flushed == flushed && flushed != PG_UINT64_MAX && member->quiet_from <= x;
}

bool
poll_feedset_quiet(const PollFeedSet *set, uint64 x)
{
	for (int i = 0; i < set->n; i++)
		if (!poll_member_quiet(&set->members[i], x))
			return false;
	return true;
}

void
poll_feedset_stamp(const PollFeedSet *set, PollCursor *cursor)
{
	cursor->epoch = poll_catalog_epoch();
	cursor->feeds = set->names_hash;
	cursor->generation = set->ids_hash;
}

void
poll_feedset_cursor(const PollFeedSet *set, text *str, PollCursor *cursor)
{
	if (!poll_cursor_decode(VARDATA_ANY(str), VARSIZE_ANY_EXHDR(str), cursor))
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("invalid cursor"),
				 errhint("Pass a cursor as it came, 'now', or none to start with a full sync.")));
	if (cursor->feeds != set->names_hash ||
		(cursor->sync && cursor->sync_feed >= (uint32) set->n))
		ereport(ERROR,
				(errcode(ERRCODE_POLL_BAD_REQUEST),
				 errmsg("the cursor belongs to other feeds"),
				 errhint("A cursor goes on with exactly the feeds that it came from.")));
	if (cursor->epoch != poll_catalog_epoch())
		ereport(ERROR,
				(errcode(ERRCODE_POLL_EXPIRED),
				 errmsg("the cursor has expired"),
				 errdetail("It comes from another server, or from before a restore or a promotion."),
				 errhint("Poll without a cursor for a full sync.")));
	if (cursor->generation != set->ids_hash)
		ereport(ERROR,
				(errcode(ERRCODE_POLL_EXPIRED),
				 errmsg("the cursor has expired"),
				 errdetail("A feed was untracked and tracked again."),
				 errhint("Poll without a cursor for a full sync.")));
}
