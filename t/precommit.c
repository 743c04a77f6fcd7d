/*
 * precommit.c
 *		Another extension, for t/005_precommit.pl: it runs SQL at the last
 *		moment, in a callback at the end of a transaction.
 *
 * Its callback is registered when it is loaded.  PostgreSQL calls the one that
 * was registered last first.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static char *pending_sql = NULL;

PG_FUNCTION_INFO_V1(at_commit);

/* at_commit(sql text): the end of this transaction runs it. */
Datum
at_commit(PG_FUNCTION_ARGS)
{
	pending_sql = MemoryContextStrdup(TopMemoryContext,
									  text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

static void
run_pending(void)
{
	char	   *sql = pending_sql;

	pending_sql = NULL;
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not run \"%s\"", sql);
	SPI_finish();
	PopActiveSnapshot();
	pfree(sql);
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		pending_sql = NULL;
	else if (pending_sql != NULL &&
			 (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE))
		run_pending();
}

void
_PG_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
}
