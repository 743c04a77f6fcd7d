/*
 * guc.c
 *		The settings, in alphabetical order.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "guc.h"

int			poll_max_scan = 50000;

void
poll_guc_install(void)
{
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

	MarkGUCPrefixReserved("poll_ext");
}
