/*
 * worker.c
 *		The background worker that closes a burst of changes, and trims old ones.
 *
 * A writer that has committed starts one in its database, if there is none:
 * once the changes are visible, which can be long after the flush, since a commit
 * may wait for a standby, and what was prepared becomes visible by COMMIT
 * PREPARED, in any session.  A poll does if it finds no tick of this server's
 * timeline.  It waits until nobody has flushed for a second, writes a tick
 * (tick.c) and is gone, so that it is never in the way of DROP DATABASE for
 * longer than that command waits.  Each second it takes the segments of the log a step on
 * (segment.c): a log that nobody writes to does not grow, either.
 *
 * It holds a lease in shared memory, the time of its last sign of life; a
 * worker that could not be started, or died, is replaced when that has run
 * out.  One that ends gives it up first and looks for a last flush after that;
 * a writer notes its flush first and looks at the lease after that; so one of
 * the two sees the other.
 *
 * Without shared_preload_libraries nobody would know of it, and there is none.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "cache.h"
#include "catalog.h"
#include "shmem.h"
#include "tick.h"
#include "trim.h"
#include "waiters.h"
#include "worker.h"

#define QUIET_MS		1000
#define MAX_STEPS		5
#define LEASE			(10 * USECS_PER_SEC)

/* how exactly the time of the last flush is kept */
#define FLUSH_PRECISION	(USECS_PER_SEC / 10)

static ProcessUtility_hook_type prev_process_utility = NULL;

extern PGDLLEXPORT void poll_ext_worker_main(Datum arg);

/* Takes the lease if it is free. */
static bool
take_lease(PollDatabase *database, TimestampTz now)
{
	uint64		lease = pg_atomic_read_u64(&database->worker);

	if (now < (TimestampTz) lease + LEASE && now >= (TimestampTz) lease)
		return false;
	return pg_atomic_compare_exchange_u64(&database->worker, &lease, now);
}

void
poll_worker_start(void)
{
	PollDatabase *database = poll_shmem_database();
	BackgroundWorker worker;

	pg_memory_barrier();
	if (!database->shared || RecoveryInProgress() || !take_lease(database, GetCurrentTimestamp()))
		return;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "poll_ext", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "poll_ext_worker_main", sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "poll_ext worker for database %u",
			 MyDatabaseId);
	strlcpy(worker.bgw_type, "poll_ext worker", sizeof(worker.bgw_type));
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	/* the lease keeps us from trying again at once */
	if (!RegisterDynamicBackgroundWorker(&worker, NULL) && poll_shmem_complain())
		ereport(LOG,
				(errmsg("poll_ext cannot trim the change log of this database: no background worker can be started"),
				 errhint("Raise max_worker_processes. Until then, poll.trim() does it by hand.")));
}

/* ---- who asks for it ---- */

void
poll_worker_note_flush(void)
{
	PollDatabase *database = poll_shmem_database();
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz last = pg_atomic_read_u64(&database->flushed);

	if (now > last + FLUSH_PRECISION || now < last)
		pg_atomic_write_u64(&database->flushed, now);
}

/* Nothing in here may fail. */
void
poll_worker_at_commit(void)
{
	poll_worker_note_flush();
	poll_worker_start();
}

/* What was prepared may have written to the log: nobody remembers. */
static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *node = pstmt->utilityStmt;
	bool		commits = IsA(node, TransactionStmt) &&
	((TransactionStmt *) node)->kind == TRANS_STMT_COMMIT_PREPARED;
	bool		counts = poll_cache_command_counts(node);

	/* after that, the statement may be gone */
	(prev_process_utility ? prev_process_utility : standard_ProcessUtility)
		(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	if (counts)
		poll_cache_note_command();
	if (commits)
	{
		/* first what cannot fail: it has committed */
		poll_cache_catalogs_changed();
		poll_waiters_wake_all();
		if (OidIsValid(get_extension_oid("poll_ext", true)))
			poll_worker_at_commit();
	}
}

void
poll_worker_install(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}

/* ---- what it does ---- */

static void
give_up_lease(int code, Datum arg)
{
	pg_atomic_write_u64(&((PollDatabase *) DatumGetPointer(arg))->worker, 0);
}

/* Is the extension there, and will it stay until the end of the transaction? */
static bool
lock_extension(void)
{
	Oid			extension = get_extension_oid("poll_ext", true);

	if (!OidIsValid(extension))
		return false;
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	return get_extension_oid("poll_ext", true) == extension;
}

/* Does something in a transaction of its own; what is for pg_stat_activity. */
static bool
run(const char *what, bool (*something) (void))
{
	bool		result = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (lock_extension())
	{
		pgstat_report_activity(STATE_RUNNING, what);
		result = something();
	}
	CommitTransactionCommand();
	/* or autovacuum would not hear of it while the worker lives */
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	return result;
}

static bool
write_tick(void)
{
	poll_tick_write(0);
	return true;
}

/*
 * Each step is a transaction.  A segment has five states: if there is more to
 * do then, there is after the next look at the clock, too.
 */
static void
trim(void)
{
	for (int i = 0; i < MAX_STEPS && run("trimming the change log", poll_trim_step); i++)
		CHECK_FOR_INTERRUPTS();
}

/*
 * Waits until nobody has flushed for a second, measured here, since the
 * server's clock may be set.
 */
static uint64
wait_for_quiet(PollDatabase *database)
{
	uint64		flushed = pg_atomic_read_u64(&database->flushed);
	instr_time	start;
	instr_time	now;
	long		left = QUIET_MS;

	INSTR_TIME_SET_CURRENT(start);
	while (left > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		pg_atomic_write_u64(&database->worker, GetCurrentTimestamp());
		INSTR_TIME_SET_CURRENT(now);
		if (flushed != pg_atomic_read_u64(&database->flushed))
		{
			flushed = pg_atomic_read_u64(&database->flushed);
			start = now;
		}
		INSTR_TIME_SUBTRACT(now, start);
		left = QUIET_MS - (long) INSTR_TIME_GET_MILLISEC(now);
		trim();
	}
	return flushed;
}

void
poll_ext_worker_main(Datum arg)
{
	PollDatabase *database;
	uint64		flushed;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	/* no standby may keep it, and with it DROP DATABASE, waiting */
	SetConfigOption("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION);
	database = poll_shmem_database();
	before_shmem_exit(give_up_lease, PointerGetDatum(database));

	do
	{
		flushed = wait_for_quiet(database);
		(void) run("writing a tick", write_tick);
		pg_atomic_write_u64(&database->worker, 0);
		pg_memory_barrier();
	} while (pg_atomic_read_u64(&database->flushed) != flushed &&
			 take_lease(database, GetCurrentTimestamp()));
	proc_exit(0);
}
