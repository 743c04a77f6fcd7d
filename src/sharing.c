/*
 * sharing.c
 *		The answer to a poll that many ask, made once.
 *
 * Clients that have seen the same hold the same cursor, so what they ask is the same
 * question.  Its answer is kept in shared memory (cache.c), with the position of the
 * snapshot that it was made under.  While shared memory says that nobody can have
 * changed anything since (poll_nothing_new()), whoever asks would get the same.
 *
 * What an answer depends on is in its key: the role, the settings that values are
 * printed by, the feeds and the scope, the cursor, the length of the page.  Which rows a
 * caller sees is decided by row-level security too, and by whatever its policies look
 * at; such answers are shared only if poll_ext.cache_claims says what that is.  A few
 * other things may change what an answer says without a change in its feed: a table
 * that a policy looks at, the code of a cast.  So no answer is older than MAX_AGE.
 *
 * With poll_ext.cache_ttl, answers are also shared that are not the newest any more: all
 * who ask within that time get what one moment has shown, the horizon, whatever they
 * have seen before (changes.c).  So they leave with one cursor, and ask the same next time.
 *
 * What differs from client to client, the time and when to poll again, is added when
 * an answer is handed out.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "utils/builtins.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "etag.h"
#include "guc.h"
#include "interval.h"
#include "sharing.h"
#include "shmem.h"
#include "snapshot.h"

#define MAX_AGE		(10 * USECS_PER_SEC)

/* Where feeds stood: this, the open transactions, the streams. */
typedef struct PositionHead
{
	uint64		x;
	int32		np;
	int32		nstreams;
} PositionHead;

/* An answer in the cache: this, the position, the cursor, the tag, what lasts. */
typedef struct Head
{
	TimestampTz time;
	uint64		horizon;		/* its begun; 0 = it had none */
	int32		cursor_length;
	int32		tag_length;
	int32		lasting;
	bool		has_more;
	bool		behind;
	bool		empty;
	bool		timed;
} Head;

/* A moment that many answers are as of. */
typedef struct Horizon
{
	uint64		begun;			/* 0 = none */
	TimestampTz time;
	PollView	view;
} Horizon;

typedef struct Shared
{
	PollCacheUse use;
	PollRequest *request;
	text	   *cursor;
	int			max_rows;
	Horizon		horizon;
	bool		as_of_now;		/* it is known to be what would be made now */
	double		poll_after;		/* of one that was made here; -1: was not */
} Shared;

/* ---- positions ---- */

void
poll_position_append(StringInfo buf, const PollRequest *request, const PollCursor *position)
{
	const PollFeedSet *set = request->set;
	PositionHead head = {position->x, position->np, 0};

	for (int i = 0; i < set->n; i++)
		head.nstreams += set->members[i].nstreams;
	appendBinaryStringInfo(buf, (const char *) &head, sizeof(head));
	appendBinaryStringInfo(buf, (const char *) position->p, sizeof(uint64) * position->np);
	for (int i = 0; i < set->n; i++)
		appendBinaryStringInfo(buf, (const char *) set->members[i].streams,
							   sizeof(PollStream) * set->members[i].nstreams);
}

const char *
poll_position_end(const char *src)
{
	PositionHead head;

	memcpy(&head, src, sizeof(head));
	return src + sizeof(head) + sizeof(uint64) * head.np + sizeof(PollStream) * head.nstreams;
}

/* Learns of a quiet stream what somebody else has. */
static void
learn_stream(PollStream *stream, const char *src)
{
	PollStream	known;

	memcpy(&known, src, sizeof(known));
	if (known.quiet_from != 0 && stream->channel == known.channel &&
		known.flushed == poll_flushed_read(known.channel))
		*stream = known;
}

bool
poll_position_holds(const char *src, PollRequest *request)
{
	PollRequest at = *request;
	PositionHead head;
	const char *end = poll_position_end(src);
	const char *p = src + sizeof(head);

	memcpy(&head, src, sizeof(head));
	at.start = POLL_START_CURSOR;
	memset(&at.cursor, 0, sizeof(PollCursor));
	at.cursor.x = head.x;
	at.cursor.np = head.np;
	at.cursor.p = palloc(sizeof(uint64) * Max(head.np, 1));
	memcpy(at.cursor.p, p, sizeof(uint64) * head.np);
	p += sizeof(uint64) * head.np;
	for (int i = 0; i < request->set->n; i++)
	{
		PollMember *member = &request->set->members[i];

		for (int j = 0; j < member->nstreams && p < end; j++, p += sizeof(PollStream))
			learn_stream(&member->streams[j], p);
	}
	return poll_nothing_new(&at);
}

/* ---- what is shared ---- */

bool
poll_sharing_add_feeds(StringInfo key, const PollFeedSet *set)
{
	appendBinaryStringInfo(key, (const char *) &set->n, sizeof(set->n));
	for (int i = 0; i < set->n; i++)
	{
		const PollMember *member = &set->members[i];

		if (member->row_security == RLS_ENABLED && poll_cache_claims[0] == '\0')
			return false;
		appendBinaryStringInfo(key, (const char *) &member->feed.id, sizeof(member->feed.id));
		appendBinaryStringInfo(key, (const char *) &member->feed.stamp, sizeof(member->feed.stamp));
		appendBinaryStringInfo(key, NameStr(member->feed.name), strlen(NameStr(member->feed.name)) + 1);
		appendBinaryStringInfo(key, (const char *) &member->scope_len, sizeof(member->scope_len));
		if (member->scope_len > 0)
			appendBinaryStringInfo(key, poll_feedset_scope(set, i), member->scope_len);
	}
	return true;
}

/* False if there is nothing to be shared. */
static bool
make_key(Shared *self)
{
	PollRequest *request = self->request;
	text	   *from = self->cursor;
	StringInfoData key;

	/* the same for all times between two ticks */
	if (request->start == POLL_START_SINCE)
	{
		poll_request_find_tick(request, GetActiveSnapshot());
		from = poll_cursor_encode(&request->cursor);
	}
	poll_cache_key_begin(&key, 'p');
	poll_cache_key_add_caller(&key);
	appendBinaryStringInfo(&key, (const char *) &request->start, sizeof(request->start));
	appendBinaryStringInfo(&key, (const char *) &self->max_rows, sizeof(self->max_rows));
	if (!poll_sharing_add_feeds(&key, request->set))
		return false;
	if (from != NULL)
		appendBinaryStringInfo(&key, VARDATA_ANY(from), VARSIZE_ANY_EXHDR(from));
	self->use.key = poll_cache_key_end(&key);
	return true;
}

static bool
is_good(PollCacheUse *use, const char *content, uint64 begun)
{
	Shared	   *self = (Shared *) use;
	Head		head;

	memcpy(&head, content, sizeof(head));
	self->as_of_now = poll_position_holds(content + sizeof(head), self->request);
	return self->as_of_now || (head.horizon != 0 ? head.horizon : begun) > use->arrival ||
		(head.horizon != 0 && head.horizon == self->horizon.begun);
}

/* ---- the horizon ---- */

/* A content is this, and the open transactions. */
typedef struct HorizonHead
{
	uint64		begun;
	TimestampTz time;
	uint64		xmax;
	int64		nopen;
} HorizonHead;

static bool
make_horizon(PollCacheUse *use, StringInfo content)
{
	PollView	view;
	HorizonHead head = {.begun = poll_cache_now(),.time = GetCurrentTransactionStartTimestamp()};

	/* one that was taken after that */
	poll_snapshot_view(GetLatestSnapshot(), &view);
	head.xmax = view.xmax;
	head.nopen = view.nopen;
	/* no later tick may have an earlier time, should the clock be set back */
	poll_clock_raise(head.time);
	appendBinaryStringInfo(content, (const char *) &head, sizeof(head));
	appendBinaryStringInfo(content, (const char *) view.open, sizeof(uint64) * view.nopen);
	return true;
}

static bool
is_good_horizon(PollCacheUse *use, const char *content, uint64 begun)
{
	return true;
}

/* That of this moment, or a moment ago. */
static Horizon
get_horizon(void)
{
	PollCached *cached;
	PollCacheUse use = {.max_age = poll_cache_ttl * 1000L,.is_good = is_good_horizon,.make = make_horizon};
	StringInfoData key;
	const char *content;
	Horizon		result;
	HorizonHead head;

	poll_cache_key_begin(&key, 'h');
	appendBinaryStringInfo(&key, (const char *) &poll_cache_ttl, sizeof(poll_cache_ttl));
	use.key = poll_cache_key_end(&key);
	cached = poll_cache_get(&use);
	content = poll_cached_content(cached);
	memcpy(&head, content, sizeof(head));
	result.begun = head.begun;
	result.time = head.time;
	result.view.xmax = head.xmax;
	result.view.nopen = head.nopen;
	result.view.open = memcpy(palloc(sizeof(uint64) * Max(head.nopen, 1)), content + sizeof(head),
							  sizeof(uint64) * head.nopen);
	poll_cached_free(cached);
	return result;
}

/* ---- answers ---- */

static text *
answer_tag(const PollAnswer *answer)
{
	PollDigest	digest;

	poll_digest_begin(&digest);
	poll_digest_add(&digest, VARDATA(answer->body), answer->lasting);
	return poll_etag_make("W/\"p1.", &digest);
}

static bool
make(PollCacheUse *use, StringInfo content)
{
	Shared	   *self = (Shared *) use;
	bool		has_horizon = self->horizon.begun != 0;
	PollRequest request = *self->request;
	PollCursor	position = {0};
	PollAnswer	answer;
	text	   *tag;
	Head		head;

	request.horizon = has_horizon ? &self->horizon.view : NULL;
	answer = poll_answer(&request, self->cursor, self->max_rows, &position);
	tag = answer_tag(&answer);
	head = (Head)
	{
		.time = has_horizon ? self->horizon.time : answer.time,
			.horizon = self->horizon.begun,
			.cursor_length = VARSIZE_ANY_EXHDR(answer.cursor),
			.tag_length = VARSIZE_ANY_EXHDR(tag),
			.lasting = answer.lasting,
			.has_more = answer.has_more,
			.behind = answer.behind,
			.empty = answer.empty,
			.timed = answer.timed,
	};

	self->poll_after = answer.poll_after;
	self->as_of_now = !has_horizon;
	/* the look may have replaced it, and has learned */
	self->request->set = poll_feedset_get(&request.selection, GetActiveSnapshot());
	appendBinaryStringInfo(content, (const char *) &head, sizeof(head));
	poll_position_append(content, self->request, &position);
	appendBinaryStringInfo(content, VARDATA_ANY(answer.cursor), head.cursor_length);
	appendBinaryStringInfo(content, VARDATA_ANY(tag), head.tag_length);
	appendBinaryStringInfo(content, VARDATA(answer.body), answer.lasting);
	/* position.x is 0 if it is behind, or there was nothing to read */
	return position.x != 0;
}

/* ---- handing it out ---- */

static PollAnswer
take(Shared *self, const char *content, text **tag)
{
	PollAnswer	answer = {0};
	StringInfoData body;
	Head		head;
	const char *src;

	memcpy(&head, content, sizeof(head));
	src = poll_position_end(content + sizeof(head));
	answer.cursor = cstring_to_text_with_len(src, head.cursor_length);
	src += head.cursor_length;
	*tag = cstring_to_text_with_len(src, head.tag_length);
	src += head.tag_length;
	answer.has_more = head.has_more;
	answer.behind = head.behind;
	answer.empty = head.empty;
	answer.timed = head.timed;
	answer.time = !head.timed ? 0 : self->as_of_now ? poll_answer_time(self->request) :
		poll_request_covers(self->request, head.time) ? head.time : 0;
	answer.poll_after = self->poll_after >= 0 ? self->poll_after :
		head.has_more ? 0 : poll_interval_hint(self->request->set);

	body.maxlen = VARHDRSZ + head.lasting + POLL_ANSWER_END_BYTES;
	body.data = palloc(body.maxlen);
	body.cursor = 0;
	body.len = VARHDRSZ + head.lasting;
	memcpy(body.data + VARHDRSZ, src, head.lasting);
	poll_answer_end(&answer, &body, self->request->set->n);
	return answer;
}

PollAnswer
poll_shared_answer(PollRequest *request, text *cursor, int max_rows, text **tag)
{
	PollAnswer	answer;
	PollCached *cached;
	Shared		self = {
		.use = {.max_age = MAX_AGE,.is_good = is_good,.make = make},
		.request = request,
		.cursor = cursor,
		.max_rows = max_rows,
		.poll_after = -1
	};

	if (request->start == POLL_START_NOW || !poll_cache_usable() || poll_nothing_new(request) ||
		!make_key(&self))
	{
		answer = poll_answer(request, cursor, max_rows, NULL);
		*tag = answer_tag(&answer);
		return answer;
	}
	if (poll_cache_ttl > 0 && !request->fresh && !RecoveryInProgress())
		self.horizon = get_horizon();
	cached = poll_cache_get(&self.use);
	answer = take(&self, poll_cached_content(cached), tag);
	poll_cached_free(cached);
	return answer;
}
