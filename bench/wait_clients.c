/*
 * The clients of bench/wait: many connections to the gateway, each with a long poll of a
 * room, and one writer.
 *
 *	wait_clients ADDRESS PORT CLIENTS ROOMS ROUNDS PAUSE
 *
 * In each round the writer changes a room, and all who wait for that room get it; then a
 * pause, in ms.  Prints the median, the 99th percentile and the maximum of the time from
 * before the change was sent to the database, so before its commit, to the answer, in ms.
 * With 0 rounds they wait, and nothing is changed, for the pause.
 */
#include <arpa/inet.h>
#include <libpq-fe.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct Client
{
	int			fd;
	int			room;
	char		cursor[1024];
	char		buffer[65536];
	size_t		length;
} Client;

static int	epoll;
static double *delays;
static long delay_count;
static double changed_at;		/* 0: nothing was changed so far */
static int	changed_room;
static int	awaited;			/* answers */

static void
fail(const char *what)
{
	perror(what);
	exit(1);
}

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static void
ask(Client *client)
{
	char		request[2048];
	int			length = snprintf(request, sizeof(request),
								  "GET /poll?feeds=messages&scope=%%7B%%22room%%22:%d%%7D&wait=25&cursor=%s HTTP/1.1\r\nHost: bench\r\n\r\n",
								  client->room, client->cursor);

	if (write(client->fd, request, length) != length)
		fail("write");
}

/* Takes an answer, if all of it is there. */
static void
take(Client *client)
{
	char	   *end,
			   *field;
	size_t		size;

	client->buffer[client->length] = '\0';
	end = strstr(client->buffer, "\r\n\r\n");
	if (end == NULL)
		return;
	field = strstr(client->buffer, "Content-Length: ");
	size = end + 4 - client->buffer + (field && field < end ? atol(field + 16) : 0);
	if (client->length < size)
		return;
	if (strncmp(client->buffer, "HTTP/1.1 200", 12) != 0)
	{
		fprintf(stderr, "%s\n", client->buffer);
		exit(1);
	}
	/* the cursor is behind the changes */
	for (field = end; (end = strstr(field + 1, "\"cursor\":\"")) != NULL;)
		field = end;
	snprintf(client->cursor, sizeof(client->cursor), "%.*s", (int) strcspn(field + 10, "\""), field + 10);
	if (changed_at > 0 && client->room == changed_room)
	{
		delays[delay_count++] = now() - changed_at;
		awaited--;
	}
	client->length = 0;
	ask(client);
}

/* Handles what comes until that time, or until nothing is awaited. */
static void
run(double until)
{
	struct epoll_event events[64];

	for (;;)
	{
		double		left = until - now();
		int			n;

		if (left <= 0 || (changed_at > 0 && awaited <= 0))
			return;
		n = epoll_wait(epoll, events, 64, (int) left + 1);
		for (int i = 0; i < n; i++)
		{
			Client	   *client = events[i].data.ptr;
			ssize_t		got = read(client->fd, client->buffer + client->length, sizeof(client->buffer) - 1 - client->length);

			if (got <= 0)
				fail("read");
			client->length += got;
			take(client);
		}
	}
}

static int
ascending(const void *a, const void *b)
{
	return (*(double *) a > *(double *) b) - (*(double *) a < *(double *) b);
}

static void
change(PGconn *db, int room)
{
	char		sql[128];
	PGresult   *result;

	snprintf(sql, sizeof(sql), "UPDATE messages SET v = v + 1 WHERE id = (SELECT min(id) FROM messages WHERE room = %d)", room);
	changed_room = room;
	changed_at = now();
	result = PQexec(db, sql);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(db));
		exit(1);
	}
	PQclear(result);
}

int
main(int argc, char **argv)
{
	int			clients = atoi(argv[3]),
				rooms = atoi(argv[4]),
				rounds = atoi(argv[5]),
				pause = atoi(argv[6]);
	struct sockaddr_in address = {.sin_family = AF_INET,.sin_port = htons(atoi(argv[2]))};
	PGconn	   *db = PQconnectdb("");
	Client	   *all = calloc(clients, sizeof(Client));

	inet_pton(AF_INET, argv[1], &address.sin_addr);
	delays = calloc((size_t) clients * (rounds + 1), sizeof(double));
	epoll = epoll_create1(0);
	for (int i = 0; i < clients; i++)
	{
		struct epoll_event event = {.events = EPOLLIN,.data.ptr = &all[i]};
		int			on = 1;

		all[i].fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(all[i].fd, (struct sockaddr *) &address, sizeof(address)) != 0)
			fail("connect");
		setsockopt(all[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event);
		all[i].room = i % rooms;
		strcpy(all[i].cursor, "now");
		ask(&all[i]);
	}
	/* until all of them wait */
	run(now() + (rounds > 0 ? 1000 : pause));
	for (int i = 0; i < rounds; i++)
	{
		awaited = (clients - i % rooms + rooms - 1) / rooms;
		change(db, i % rooms);
		run(now() + 5000);
		if (awaited > 0)
		{
			fprintf(stderr, "%d clients have not heard of a change\n", awaited);
			return 1;
		}
		changed_at = 0;
		run(now() + pause);
	}
	if (rounds > 0)
	{
		qsort(delays, delay_count, sizeof(double), ascending);
		printf("%.3f %.3f %.3f\n", delays[delay_count / 2], delays[delay_count * 99 / 100], delays[delay_count - 1]);
	}
	return 0;
}
