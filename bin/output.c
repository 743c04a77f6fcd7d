/*
 * output.c
 *		What goes out: changes and the cursor.
 *
 * Each page of changes is written and flushed before its cursor is kept, so that
 * whoever goes on from there gets the page again if it did not get out.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "options.h"
#include "output.h"

#define MAX_CURSOR	65536		/* bytes */

static FILE *out;

/* ---- changes ---- */

/*
 * Within a line, and without what a terminal obeys.  In JSON, control characters of
 * ASCII are between tokens only, as white space; DEL and those from U+0080 to U+009F
 * are in strings only, where they may be escaped.
 */
static void
put_json(const char *json)
{
	const unsigned char *c = (const unsigned char *) (json ? json : "null");

	for (; *c != '\0'; c++)
	{
		if (*c < ' ')
			putc(' ', out);
		else if (*c == 0x7f)
			fputs("\\u007f", out);
		else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
			fprintf(out, "\\u%04x", *++c);
		else
			putc(*c, out);
	}
}

static void
put_member(const char *before, const char *json)
{
	fputs(before, out);
	put_json(json);
}

static void
put_time(const char *version)
{
	int64_t		us = strtoll(version, NULL, 10);
	time_t		seconds = us / 1000000;
	struct tm	tm;
	char text[	64];

	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", gmtime_r(&seconds, &tm));
	fprintf(out, "%s.%03d+00 ", text, (int) (us % 1000000 / 1000));
}

void
output_begin(void)
{
	out = options.command ? popen(options.command, "w") : stdout;
	if (out == NULL)
		die("cannot run the command: %m");
}

void
output_change(const Change *change)
{
	if (options.json || options.command)
	{
		put_member("{\"feed\":", change->feed);
		fprintf(out, ",\"op\":\"%s\"", change->op);
		put_member(",\"key\":", change->key);
		put_member(",\"data\":", change->data);
		put_member(",\"version\":", change->version);
		putc('}', out);
	}
	else
	{
		if (change->version)
			put_time(change->version);
		if (change->feed)
			/* without the quotes: names of feeds need none */
			fprintf(out, "%.*s ", (int) strlen(change->feed) - 2, change->feed + 1);
		fputs(change->op, out);
		if (change->key)
			put_member(" ", change->key);
		if (change->data)
			put_member(" ", change->data);
	}
	putc('\n', out);
}

/* It need not read all, but it must end well. */
static bool
end_command(void)
{
	int			status;

	if (fflush(out) != 0)
		__fpurge(out);
	status = pclose(out);
	if (status == -1)
		die("cannot run the command: %m");
	if (WIFSIGNALED(status))
		say("the command was ended by signal %d, and its page is not done", WTERMSIG(status));
	else if (status != 0)
		say("the command has failed with exit code %d, and its page is not done", WEXITSTATUS(status));
	return status == 0;
}

bool
output_end(void)
{
	if (options.command)
		return end_command();
	if (fflush(out) == 0 && !ferror(out))
		return true;
	if (errno == EPIPE)
		exit(0);
	die("cannot write: %m");
}

bool
output_closed(void)
{
	struct pollfd reader = {.fd = STDOUT_FILENO};

	return options.command == NULL && poll(&reader, 1, 0) > 0 && (reader.revents & (POLLERR | POLLHUP)) != 0;
}

/* ---- progress ---- */

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* Where changes are on the same terminal, they are what is seen. */
void
output_progress(int rows)
{
	static int64_t total;
	static double start;

	if (options.quiet || !isatty(STDERR_FILENO) || (isatty(STDOUT_FILENO) && options.command == NULL))
		return;
	if (rows > 0)
	{
		if (total == 0)
			start = now();
		total += rows;
		fprintf(stderr, "\r" PROGRAM ": %lld rows, %.0f rows/s ", (long long) total,
				total / (now() - start + 0.001));
	}
	else if (total > 0)
	{
		putc('\n', stderr);
		total = 0;
	}
}

/* ---- the cursor ---- */

char *
cursor_load(void)
{
	char	   *cursor;
	FILE	   *file;

	if (options.cursor_file == NULL)
		return NULL;
	file = fopen(options.cursor_file, "r");
	if (file == NULL && errno == ENOENT)
		return NULL;
	if (file == NULL)
		die("cannot read %s: %m", options.cursor_file);
	cursor = calloc(1, MAX_CURSOR);
	if (cursor == NULL)
		die("out of memory");
	if (fread(cursor, 1, MAX_CURSOR - 1, file) == 0 && ferror(file))
		die("cannot read %s: %m", options.cursor_file);
	fclose(file);
	cursor[strcspn(cursor, "\n")] = '\0';
	return cursor;
}

/* After a crash of the machine it may be the one before: then changes come again. */
void
cursor_save(const char *cursor)
{
	char		name[4096];
	FILE	   *file;

	if (options.cursor_file == NULL)
		return;
	if (snprintf(name, sizeof(name), "%s.new", options.cursor_file) >= (int) sizeof(name))
		die("the name of the cursor file is too long");
	file = fopen(name, "w");
	if (file == NULL || fprintf(file, "%s\n", cursor) < 0 || fflush(file) != 0 ||
		fsync(fileno(file)) != 0 || fclose(file) != 0 || rename(name, options.cursor_file) != 0)
		die("cannot write %s: %m", options.cursor_file);
}
