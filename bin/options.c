/*
 * options.c
 *		The command line.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "log.h"
#include "options.h"

Options		options = {
	.max_rows = 1000,
	.wait = true,
	.min = 0.25,
	.max = 10
};

static const char help[] =
"polltail prints the changes of tables that poll_ext tracks, as they come.\n"
"\n"
"Usage:\n"
"  polltail [OPTION]... FEED...\n"
"\n"
"Where to begin (else: now):\n"
"  -f, --full                the whole tables first\n"
"  -s, --since=TIME          at a time\n"
"  -c, --cursor-file=FILE    where the last run with this file has ended, if there was\n"
"                            one; keeps the cursor there after each page\n"
"      --resync              the whole tables also whenever the cursor has expired\n"
"\n"
"What to do with changes (else: print a line for each):\n"
"  -j, --json                as JSON lines: feed, op, key, data, version\n"
"  -e, --exec=COMMAND        by a command of the shell, which reads a page of these lines\n"
"\n"
"When to poll (else: as soon as there is something, where the server has poll.wait()):\n"
"  -i, --interval=SECONDS    at this interval\n"
"      --min=SECONDS         at intervals that adapt, from this one (0.25)\n"
"      --max=SECONDS         up to this one (10)\n"
"  -w, --wait                by poll.wait(), and by intervals without it\n"
"\n"
"How much:\n"
"      --scope=JSON          of feeds that are divided, such as {\"room_id\": 7}\n"
"  -m, --max-rows=N          changes a page, 1 to 10000 (1000)\n"
"  -1, --once                what there is now, then end\n"
"  -n, --count=N             end after so many changes\n"
"\n"
"Connection; what is not said is taken from the environment (PGHOST, ...):\n"
"  -d, --dbname=CONNINFO     database, connection string or URI\n"
"  -h, --host=HOST           server, or the folder of its socket\n"
"  -p, --port=PORT           its port\n"
"  -U, --username=NAME       role\n"
"\n"
"  -q, --quiet               no progress of a full sync\n"
"      --help                this text\n"
"  -V, --version             the version\n"
"\n"
"It ends with 0 after a signal, --once, --count, or when nobody reads any more; with 3\n"
"if the cursor has expired; with 1 after any other error.\n";

enum
{
	HELP = 256,
	RESYNC,
	MIN,
	MAX,
	SCOPE
};

static const struct option names[] = {
	{"full", no_argument, NULL, 'f'},
	{"since", required_argument, NULL, 's'},
	{"cursor-file", required_argument, NULL, 'c'},
	{"resync", no_argument, NULL, RESYNC},
	{"json", no_argument, NULL, 'j'},
	{"exec", required_argument, NULL, 'e'},
	{"interval", required_argument, NULL, 'i'},
	{"min", required_argument, NULL, MIN},
	{"max", required_argument, NULL, MAX},
	{"wait", no_argument, NULL, 'w'},
	{"scope", required_argument, NULL, SCOPE},
	{"max-rows", required_argument, NULL, 'm'},
	{"once", no_argument, NULL, '1'},
	{"count", required_argument, NULL, 'n'},
	{"dbname", required_argument, NULL, 'd'},
	{"host", required_argument, NULL, 'h'},
	{"port", required_argument, NULL, 'p'},
	{"username", required_argument, NULL, 'U'},
	{"quiet", no_argument, NULL, 'q'},
	{"help", no_argument, NULL, HELP},
	{"version", no_argument, NULL, 'V'},
	{NULL, 0, NULL, 0}
};

static int64_t
number(const char *name, int64_t max)
{
	char	   *end;
	int64_t		value;

	errno = 0;
	value = strtoll(optarg, &end, 10);
	if (errno != 0 || end == optarg || *end != '\0' || value < 1 || value > max)
		die("--%s must be a number from 1 to %lld, not \"%s\"", name, (long long) max, optarg);
	return value;
}

static double
seconds(const char *name)
{
	char	   *end;
	double		value = strtod(optarg, &end);

	if (end == optarg || *end != '\0' || !(value >= 0.001 && value <= 86400))
		die("--%s must be seconds, from 0.001 to 86400, not \"%s\"", name, optarg);
	return value;
}

static void
read_option(int option)
{
	switch (option)
	{
		case 'f':
			options.full = true;
			break;
		case 's':
			options.since = optarg;
			break;
		case 'c':
			options.cursor_file = optarg;
			break;
		case RESYNC:
			options.resync = true;
			break;
		case 'j':
			options.json = true;
			break;
		case 'e':
			options.command = optarg;
			break;
		case 'i':
			options.interval = seconds("interval");
			options.wait = false;
			break;
		case MIN:
			options.min = seconds("min");
			options.wait = false;
			break;
		case MAX:
			options.max = seconds("max");
			options.wait = false;
			break;
		case 'w':
			options.wait_asked = true;
			break;
		case SCOPE:
			options.scope = optarg;
			break;
		case 'm':
			options.max_rows = number("max-rows", 10000);
			break;
		case '1':
			options.once = true;
			break;
		case 'n':
			options.count = number("count", INT64_MAX);
			break;
		case 'd':
			options.dbname = optarg;
			break;
		case 'h':
			options.host = optarg;
			break;
		case 'p':
			options.port = optarg;
			break;
		case 'U':
			options.user = optarg;
			break;
		case 'q':
			options.quiet = true;
			break;
		case HELP:
			fputs(help, stdout);
			exit(0);
		case 'V':
			puts(PROGRAM " " VERSION);
			exit(0);
		default:
			fputs("Try \"" PROGRAM " --help\".\n", stderr);
			exit(1);
	}
}

void
options_read(int argc, char **argv)
{
	int			option;

	while ((option = getopt_long(argc, argv, "fs:c:je:i:wm:1n:d:h:p:U:qV", names, NULL)) != -1)
		read_option(option);
	options.feeds = (const char *const *) argv + optind;
	options.feed_count = argc - optind;
	if (options.feed_count == 0)
		die("which feeds? See --help");
	if (options.full && options.since != NULL)
		die("--full and --since exclude each other");
	if (options.min > options.max)
		die("--min must not be more than --max");
	if (options.wait_asked && options.interval > 0)
		die("--wait and --interval exclude each other");
	options.wait |= options.wait_asked;
}
