/*
 * options.c
 *		The command line.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "options.h"

Options		options = {
	.conninfo = "",
	.connections = 8,
	.listen = "127.0.0.1:8080",
	.max_clients = 4096,
	.max_body = 64 * 1024,
	.max_headers = 16 * 1024,
	.max_sending = 256,
	.max_wait = 25 * 1000,
	.timeout = 10 * 1000,
	.client_timeout = 60 * 1000
};

static const char help[] =
"poll-gateway carries HTTP requests to poll.respond() in a PostgreSQL database.\n"
"\n"
"Usage:\n"
"  poll-gateway [OPTION]...\n"
"\n"
"Database:\n"
"  -d, --dbname=CONNINFO        connection string or URI; what it does not say is\n"
"                               taken from the environment (PGHOST, ...)\n"
"  -c, --connections=N          connections to the database (8)\n"
"  -t, --timeout=SECONDS        of an answer of the database (10)\n"
"\n"
"What is served, beside /poll, /healthz and /metrics:\n"
"  -f, --function=SCHEMA.NAME   POST /rpc/NAME calls this function with the body, a\n"
"                               JSON object; can be repeated\n"
"  -s, --static=FOLDER          files, read once at the start\n"
"\n"
"Clients:\n"
"  -l, --listen=ADDRESS:PORT    where to listen (127.0.0.1:8080); port 0: any\n"
"      --client-header=NAME     the header that says who the client is, for rate\n"
"                               limits; a proxy must set it. Else: the address\n"
"      --trusted-proxies=N      so many proxies in front append the address of whom\n"
"                               they serve to X-Forwarded-For (0)\n"
"      --max-clients=N          open connections; with more, the one that is idle for\n"
"                               longest is closed (4096)\n"
"      --max-headers=BYTES      of a request, with its URL (16384)\n"
"      --max-body=BYTES         of a request (65536)\n"
"      --max-sending=MB         of answers that are not taken yet; with more, the client\n"
"                               that has had the longest for that is cut off (256)\n"
"      --max-wait=SECONDS       that a poll may wait for news; 0: none does (25)\n"
"      --client-timeout=SECONDS for a request to arrive, and for an answer to be\n"
"                               taken; also of a connection without one (60)\n"
"\n"
"  -h, --help                   this text\n"
"  -V, --version                the version\n";

enum
{
	CLIENT_HEADER = 256,
	TRUSTED_PROXIES,
	MAX_CLIENTS,
	MAX_HEADERS,
	MAX_BODY,
	MAX_SENDING,
	MAX_WAIT,
	CLIENT_TIMEOUT
};

static const struct option names[] = {
	{"dbname", required_argument, NULL, 'd'},
	{"connections", required_argument, NULL, 'c'},
	{"timeout", required_argument, NULL, 't'},
	{"function", required_argument, NULL, 'f'},
	{"static", required_argument, NULL, 's'},
	{"listen", required_argument, NULL, 'l'},
	{"client-header", required_argument, NULL, CLIENT_HEADER},
	{"trusted-proxies", required_argument, NULL, TRUSTED_PROXIES},
	{"max-clients", required_argument, NULL, MAX_CLIENTS},
	{"max-headers", required_argument, NULL, MAX_HEADERS},
	{"max-body", required_argument, NULL, MAX_BODY},
	{"max-sending", required_argument, NULL, MAX_SENDING},
	{"max-wait", required_argument, NULL, MAX_WAIT},
	{"client-timeout", required_argument, NULL, CLIENT_TIMEOUT},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{NULL, 0, NULL, 0}
};

static int
number(const char *name, int min, int max)
{
	char	   *end;
	long		value;

	errno = 0;
	value = strtol(optarg, &end, 10);
	if (errno != 0 || end == optarg || *end != '\0' || value < min || value > max)
		die("--%s must be a number from %d to %d, not \"%s\"", name, min, max, optarg);
	return value;
}

static void
add_function(const char *name)
{
	const char *dot = strchr(name, '.');

	if (dot == NULL || dot == name || dot[1] == '\0' || strchr(dot + 1, '.') != NULL)
		die("--function must be SCHEMA.NAME, not \"%s\"", name);
	if (options.function_count == MAX_FUNCTIONS)
		die("more than %d functions", MAX_FUNCTIONS);
	options.functions[options.function_count++] = name;
}

static void
read_option(int option)
{
	switch (option)
	{
		case 'd':
			options.conninfo = optarg;
			break;
		case 'c':
			options.connections = number("connections", 1, 1000);
			break;
		case 't':
			options.timeout = number("timeout", 1, 3600) * 1000;
			break;
		case 'f':
			add_function(optarg);
			break;
		case 's':
			options.static_folder = optarg;
			break;
		case 'l':
			options.listen = optarg;
			break;
		case CLIENT_HEADER:
			if (optarg[strcspn(optarg, ": \t\r\n")] != '\0' || *optarg == '\0')
				die("--client-header must be the name of a header, not \"%s\"", optarg);
			options.client_header = optarg;
			break;
		case TRUSTED_PROXIES:
			options.trusted_proxies = number("trusted-proxies", 0, 100);
			break;
		case MAX_CLIENTS:
			options.max_clients = number("max-clients", 1, 1000000);
			break;
		case MAX_HEADERS:
			options.max_headers = number("max-headers", 2048, 16 * 1024 * 1024);
			break;
		case MAX_BODY:
			options.max_body = number("max-body", 0, 64 * 1024 * 1024);
			break;
		case MAX_SENDING:
			options.max_sending = number("max-sending", 1, 1024 * 1024);
			break;
		case MAX_WAIT:
			options.max_wait = number("max-wait", 0, 25) * 1000;
			break;
		case CLIENT_TIMEOUT:
			options.client_timeout = number("client-timeout", 1, 3600) * 1000;
			break;
		case 'h':
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

	while ((option = getopt_long(argc, argv, "d:c:t:f:s:l:hV", names, NULL)) != -1)
		read_option(option);
	if (optind < argc)
		die("unknown argument \"%s\", see --help", argv[optind]);
}
