/*
 * guc.c
 *		The settings, in alphabetical order.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "guc.h"

char	   *poll_cache_claims = NULL;
int			poll_cache_size = 16384;
int			poll_cache_ttl = 0;
int			poll_client_ipv4_prefix = 32;
int			poll_client_ipv6_prefix = 64;
char	   *poll_cors_origin = NULL;
double		poll_debug_rate_clock = -1;
int			poll_max_interval = 60000;
int			poll_max_scan = 50000;
int			poll_min_interval = 1000;
int			poll_poll_cost = 2000;
int			poll_public_max_age = 0;
int			poll_rate_entries = 65536;
int			poll_retention = 86400;
int			poll_rotate_size = 1024 * 1024;

static bool
check_cache_claims(char **value, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*value);
	List	   *list;
	bool		good = SplitGUCList(copy, ',', &list);

	if (!good)
		GUC_check_errdetail("It must be a list of names of settings.");
	/* blanks are none */
	if (good && list == NIL)
		**value = '\0';
	list_free(list);
	pfree(copy);
	return good;
}

void
poll_guc_install(void)
{
	/*
	 * Row-level security lets a caller see what its policies allow, which
	 * mostly depends on settings such as request.jwt.claims.  Answers to
	 * those who differ in one of these are not shared; with none of them
	 * named, answers that policies decide on are not shared at all.
	 */
	DefineCustomStringVariable("poll_ext.cache_claims",
							   "Sets the names of the settings that row-level security depends on.",
							   "Who agrees in all of them, and in the role, may get the same answer. Empty: what policies decide on is not shared.",
							   &poll_cache_claims,
							   "",
							   PGC_SUSET, GUC_LIST_INPUT, check_cache_claims, NULL, NULL);

	/* Shared memory for answers, from the start of the server. */
	DefineCustomIntVariable("poll_ext.cache_size",
							"Sets how much shared memory answers may take.",
							"0 switches sharing off.",
							&poll_cache_size,
							16384, 0, 256 * 1024 * 1024,
							process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP,
							GUC_UNIT_KB, NULL, NULL, NULL);

	/*
	 * An answer is shared as long as it is the right one.  So long it is also
	 * shared when there have been changes since: then all who ask within this
	 * time get what was known at its beginning, and go on from there.
	 */
	DefineCustomIntVariable("poll_ext.cache_ttl",
							"Sets for how long answers are shared though there are newer changes.",
							"0: not at all.",
							&poll_cache_ttl,
							0, 0, 60000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);

	/*
	 * Which part of an address is the client, for poll.client_network().  An
	 * IPv6 user commonly has a /64, many have a /56.  Who could set it could
	 * choose who to be.
	 */
	DefineCustomIntVariable("poll_ext.client_ipv4_prefix",
							"Sets the length of the network that stands for an IPv4 client.",
							NULL,
							&poll_client_ipv4_prefix,
							32, 0, 32,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("poll_ext.client_ipv6_prefix",
							"Sets the length of the network that stands for an IPv6 client.",
							NULL,
							&poll_client_ipv6_prefix,
							64, 0, 128,
							PGC_SUSET, 0, NULL, NULL, NULL);

	/*
	 * Pages of which origin may read what poll.respond() answers, in
	 * browsers. They cannot send cookies along in any case.
	 */
	DefineCustomStringVariable("poll_ext.cors_origin",
							   "Sets the origin whose pages may poll.",
							   "* is all, the empty string none.",
							   &poll_cors_origin,
							   "*",
							   PGC_SUSET, 0, NULL, NULL, NULL);

	/*
	 * Rate limits of this session see this time instead of the server's, so
	 * that tests need not wait.
	 */
	DefineCustomRealVariable("poll_ext.debug_rate_clock",
							 "Sets the time that rate limits see, in seconds.",
							 "-1 is the real one.",
							 &poll_debug_rate_clock,
							 -1, -1, 1e9,
							 PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);

	/*
	 * The bounds of poll.interval_hint().  A client that a bug or a hot feed
	 * would make ask all the time is told to wait so long at least.
	 */
	DefineCustomIntVariable("poll_ext.max_interval",
							"Sets the longest interval that clients are told to poll in.",
							NULL,
							&poll_max_interval,
							60000, 10, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);

	/*
	 * How many entries of the change log one poll may read.  A poll returns a
	 * row for each key, however often it changed, so a row that changes all
	 * the time could make a short page a long read.  At the bound the page
	 * ends, with has_more and a cursor that moved on.  Users may not set it:
	 * it protects the server from them.
	 */
	DefineCustomIntVariable("poll_ext.max_scan",
							"Sets how many change log entries one poll may read.",
							"A poll that reaches the bound returns a short page and has_more.",
							&poll_max_scan,
							50000, 1, INT_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("poll_ext.min_interval",
							"Sets the shortest interval that clients are told to poll in.",
							NULL,
							&poll_min_interval,
							1000, 10, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);

	/*
	 * What a poll costs, as delay: that a change is heard of so much earlier
	 * is worth one more poll.  Four times as much is half as many polls.
	 */
	DefineCustomIntVariable("poll_ext.poll_cost",
							"Sets the delay of a change that a poll is worth, for the interval that clients are told.",
							"More means fewer polls and longer delays.",
							&poll_poll_cost,
							2000, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);

	/*
	 * How long caches that many clients share may give one of them what
	 * another has got.  By default none may: only whoever has made the role
	 * that reads knows that it reads what everybody may know.  Who could set
	 * it could make that public.
	 */
	DefineCustomIntVariable("poll_ext.public_max_age",
							"Sets how long shared caches may keep answers over HTTP.",
							"0: not at all. Answers under row-level security are never shared.",
							&poll_public_max_age,
							0, 0, 86400,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);

	/*
	 * How many clients rate limits can tell apart at a time, of all databases
	 * and endpoints together; each takes 64 bytes of shared memory, from the
	 * start of the server.  Without shared_preload_libraries it has no
	 * effect.
	 */
	DefineCustomIntVariable("poll_ext.rate_entries",
							"Sets how many clients of rate limits are remembered.",
							"0 switches rate limits off.",
							&poll_rate_entries,
							65536, 0, 16777216,
							process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP,
							0, NULL, NULL, NULL);

	/*
	 * How long a cursor is good for: who has polled within this time misses
	 * nothing.  The change log keeps up to one and a half times as much.
	 */
	DefineCustomIntVariable("poll_ext.retention",
							"Sets how long changes are kept for clients that have not polled.",
							"Later, they start again with a full sync.",
							&poll_retention,
							86400, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);

	/*
	 * A segment of the change log that has become so large, index included,
	 * makes room: the oldest one is trimmed before its time.  A full disk
	 * would be worse.
	 */
	DefineCustomIntVariable("poll_ext.rotate_size",
							"Sets the size of a segment of the change log at which the oldest one is trimmed early.",
							"The log has three segments. 0: only retention counts.",
							&poll_rotate_size,
							1024 * 1024, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);

	MarkGUCPrefixReserved("poll_ext");
}
