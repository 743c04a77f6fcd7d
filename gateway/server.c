/*
 * server.c
 *		The HTTP side: connections of clients and their requests.
 *
 * libmicrohttpd speaks HTTP, within our loop. While the database has a request,
 * its connection is suspended.
 *
 * Slow clients: a connection has the client timeout to bring a whole request,
 * and again to take the answer, however many bytes a second come or go. Those
 * that have it are in a list, so that the first has had it for longest; when there
 * are too many connections, that one is closed for the sake of the new one; and
 * when too much is to be sent, the first of those who should take it.
 */
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "options.h"
#include "routes.h"
#include "server.h"
#include "wait.h"

#define BACKLOG		4096
#define CLOSING		64			/* connections that are being closed, beside
								 * max_clients */
#define OTHER_FILES	64
#define ANSWER_HEADERS	(16 * 1024) /* bytes of memory for those of an answer */

/* A connection */
typedef struct Client
{
	TAILQ_ENTRY(Client) entry;
	bool		listed;
	Source		hangup;			/* its file */
	bool		hung_up;
	Request    *waiting;		/* to be told of that, or NULL */
	void		(*tell) (Request *request);
	int64_t		since;			/* loop_now() when it came into the list */
	size_t		sending;		/* bytes of memory that its answer takes */
} Client;

static TAILQ_HEAD(, Client) idle = TAILQ_HEAD_INITIALIZER(idle);
static int	clients;
static int	requests;			/* whose answer is not yet sent */
static size_t sending;			/* of all clients */
static bool stopping;

static struct MHD_Daemon *daemon_;
static Source source;

/* ---- the list of those that must hurry ---- */

static void
unlist(Client *client)
{
	if (client->listed)
		TAILQ_REMOVE(&idle, client, entry);
	client->listed = false;
}

static void
list(Client *client)
{
	unlist(client);
	client->since = loop_now();
	client->listed = true;
	TAILQ_INSERT_TAIL(&idle, client, entry);
}

/* libmicrohttpd will notice. */
static void
hang_up(Client *client)
{
	unlist(client);
	shutdown(client->hangup.fd, SHUT_RDWR);
}

/* Its answer takes so much memory now. */
static void
account(Client *client, size_t size)
{
	sending += size - client->sending;
	client->sending = size;
	while (sending > (size_t) options.max_sending * 1024 * 1024)
	{
		Client	   *first;

		TAILQ_FOREACH(first, &idle, entry)
		{
			if (first->sending > 0 && first != client)
				break;
		}
		if (first == NULL)
			break;
		hang_up(first);
		sending -= first->sending;
		first->sending = 0;
	}
}

void
server_tick(void)
{
	int64_t		now = loop_now();
	Client	   *client;

	while ((client = TAILQ_FIRST(&idle)) != NULL && client->since + options.client_timeout < now)
		hang_up(client);
}

static void
connection_changed(void *arg, struct MHD_Connection *connection, void **context,
				   enum MHD_ConnectionNotificationCode code)
{
	Client	   *client = *context;

	if (code == MHD_CONNECTION_NOTIFY_STARTED)
	{
		*context = client = calloc(1, sizeof(Client));
		if (client == NULL)
			die("out of memory");
		client->hangup.fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
		if (++clients > options.max_clients)
		{
			if (!TAILQ_EMPTY(&idle))
				hang_up(TAILQ_FIRST(&idle));
			else
				wait_end_first();
		}
		list(client);
	}
	else
	{
		clients--;
		unlist(client);
		loop_unwatch(&client->hangup);
		free(client);
	}
}

static Client *
client_of(Request *request)
{
	return MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

int
server_clients(void)
{
	return clients;
}

/* ---- requests ---- */

static double
seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* The first line of a request is there. */
static void *
request_started(void *arg, const char *uri, struct MHD_Connection *connection)
{
	Request    *request = calloc(1, sizeof(Request));
	const char *query = strchr(uri, '?');

	if (request == NULL)
		return NULL;
	request->connection = connection;
	request->query = query ? strdup(query + 1) : NULL;
	return request;
}

static void
request_completed(void *arg, struct MHD_Connection *connection, void **context,
				  enum MHD_RequestTerminationCode code)
{
	Request    *request = *context;

	if (request == NULL)
		return;
	if (request->arrived != 0)
		requests--;
	if (request->answer.response != NULL)
		MHD_destroy_response(request->answer.response);
	account(client_of(request), 0);
	list(client_of(request));
	free(request->query);
	free(request->body);
	free(request->parameter);
	free(request->signals);
	free(request);
	*context = NULL;
}

static enum MHD_Result
send_answer(Request *request)
{
	Answer	   *answer = &request->answer;

	if (answer->response == NULL)
		return MHD_NO;
	if (stopping)
		answer_header(answer, MHD_HTTP_HEADER_CONNECTION, "close");
	/* who has gone gets none */
	if (!client_of(request)->hung_up)
		metrics_count(request->route, answer, request->arrived != 0 ? seconds_now() - request->arrived : 0);
	list(client_of(request));
	if (request->route != ROUTE_OTHER)	/* files are there anyway */
		account(client_of(request), answer->size);
	return MHD_queue_response(request->connection, answer->status, answer->response);
}

void
server_suspend(Request *request)
{
	unlist(client_of(request));
	request->suspended = true;
	MHD_suspend_connection(request->connection);
}

void
server_answered(Request *request)
{
	MHD_resume_connection(request->connection);
}

/* Told once, also of what was before: so it is remembered. */
static void
client_hung_up(Source *hangup, uint32_t events)
{
	Client	   *client = (Client *) ((char *) hangup - offsetof(Client, hangup));

	client->hung_up = true;
	if (client->waiting != NULL)
		client->tell(client->waiting);
}

void
server_await_hangup(Request *request, void (*tell) (Request *request))
{
	Client	   *client = client_of(request);

	client->waiting = request;
	client->tell = tell;
	client->hangup.ready = client_hung_up;
	/* once for all requests of the connection */
	loop_watch(&client->hangup, EPOLLRDHUP | EPOLLET);
	if (client->hung_up)
		tell(request);
}

void
server_ignore_hangup(Request *request)
{
	client_of(request)->waiting = NULL;
}

/* How large the body will be, in bytes; as large as can be if that is not said. */
static unsigned long long
body_length(struct MHD_Connection *connection)
{
	const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

	if (MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING) != NULL)
		return ULLONG_MAX;
	return length ? strtoull(length, NULL, 10) : 0;
}

/* Adds a part of the body. False: it is too large, or there is no memory. */
static bool
add_body(Request *request, const char *data, size_t size)
{
	char	   *body;

	if (size > options.max_body - request->body_size)
		return false;
	body = realloc(request->body, request->body_size + size);
	if (body == NULL)
		return false;
	memcpy(body + request->body_size, data, size);
	request->body = body;
	request->body_size += size;
	return true;
}

/*
 * The headers are there.  What is answered now is answered without the body, and
 * the connection ends with it; so if there is none, that waits for the next call.
 */
static enum MHD_Result
begin(Request *request, const char *method, const char *path)
{
	unsigned long long length = body_length(request->connection);

	request->begun = true;
	if (MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE)->header_size > (size_t) options.max_headers)
	{
		request->route = ROUTE_OTHER;
		request->answer = answer_problem(MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE, "the URL or the headers are too large");
		request->answered = true;
	}
	else
		routes_begin(request, method, path);
	if (!request->answered && length > (unsigned long long) options.max_body && length != ULLONG_MAX)
	{
		request->answer = answer_problem(MHD_HTTP_CONTENT_TOO_LARGE, "the body is too large");
		request->answered = true;
	}
	return request->answered && length > 0 ? send_answer(request) : MHD_YES;
}

/*
 * libmicrohttpd calls this when the headers are there, with each part of the
 * body, at its end, and again after the connection was suspended.
 */
static enum MHD_Result
handle(void *arg, struct MHD_Connection *connection, const char *path, const char *method,
	   const char *version, const char *data, size_t *size, void **context)
{
	Request    *request = *context;

	if (request == NULL)
		return MHD_NO;
	if (!request->begun)
		return begin(request, method, path);
	if (*size > 0)
	{
		if (!add_body(request, data, *size))
			return MHD_NO;
		*size = 0;
		return MHD_YES;
	}
	if (!request->answered)
	{
		request->arrived = seconds_now();
		requests++;
		routes_run(request, method);

		/* also if the answer has come at once: it is sent when it is resumed */
		if (request->suspended)
			return MHD_YES;
	}
	return send_answer(request);
}

/* ---- the daemon ---- */

/* Splits ADDRESS:PORT, where the address may be in brackets. */
static struct addrinfo *
listen_address(void)
{
	static const struct addrinfo hints = {
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV,.ai_socktype = SOCK_STREAM
	};
	struct addrinfo *result;
	const char *colon = strrchr(options.listen, ':');
	const char *start = options.listen;
	char	   *host,
			   *end;
	long		port;
	size_t		length;
	int			error;

	if (colon == NULL || colon[1] == '\0')
		die("--listen must be ADDRESS:PORT, not \"%s\"", options.listen);
	port = strtol(colon + 1, &end, 10);
	if (*end != '\0' || port < 0 || port > 65535)
		die("the port of --listen must be a number from 0 to 65535, not \"%s\"", colon + 1);
	length = colon - start;
	if (length >= 2 && start[0] == '[' && colon[-1] == ']')
	{
		start++;
		length -= 2;
	}
	host = strndup(start, length);
	error = getaddrinfo(length > 0 ? host : NULL, colon + 1, &hints, &result);
	if (error != 0)
		die("cannot listen on %s: %s", options.listen, gai_strerror(error));
	free(host);
	return result;
}

static int
open_socket(void)
{
	struct addrinfo *address = listen_address();
	struct sockaddr_storage bound;
	socklen_t	length = sizeof(bound);
	char		host[NI_MAXHOST],
				port[NI_MAXSERV];
	int			on = 1;
	int			fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
		bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0)
		die("cannot listen on %s: %m%s", options.listen,
			errno == EADDRINUSE ? " (--listen chooses another port)" :
			errno == EACCES ? " (ports below 1024 need the capability CAP_NET_BIND_SERVICE)" : "");
	freeaddrinfo(address);
	if (getsockname(fd, (struct sockaddr *) &bound, &length) == 0 &&
		getnameinfo((struct sockaddr *) &bound, length, host, sizeof(host), port, sizeof(port),
					NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		say(strchr(host, ':') ? "listening on http://[%s]:%s" : "listening on http://%s:%s", host, port);
	return fd;
}

/* Each connection is an open file. */
static void
raise_file_limit(void)
{
	struct rlimit limit;
	rlim_t		needed = options.max_clients + CLOSING + options.connections + OTHER_FILES;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed)
		return;
	if (limit.rlim_max < needed)
		die("--max-clients=%d needs %ld open files, and %ld are allowed: see ulimit -n, or LimitNOFILE= of systemd",
			options.max_clients, (long) needed, (long) limit.rlim_max);
	limit.rlim_cur = needed;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		die("cannot have %ld open files: %m", (long) needed);
}

static void
daemon_ready(Source *s, uint32_t events)
{
	/* server_run() comes after each wait */
}

static void
log_message(void *arg, const char *format, va_list arguments)
{
	/* what goes wrong with a connection is the client's affair */
}

void
server_start(void)
{
	raise_file_limit();
	daemon_ = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
							   NULL, NULL, handle, NULL,
							   MHD_OPTION_EXTERNAL_LOGGER, log_message, NULL,
							   MHD_OPTION_LISTEN_SOCKET, open_socket(),
							   MHD_OPTION_CONNECTION_LIMIT, (unsigned int) (options.max_clients + CLOSING),
							   MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) options.max_headers + ANSWER_HEADERS,
							   MHD_OPTION_NOTIFY_CONNECTION, connection_changed, NULL,
							   MHD_OPTION_URI_LOG_CALLBACK, request_started, NULL,
							   MHD_OPTION_NOTIFY_COMPLETED, request_completed, NULL,
							   MHD_OPTION_END);
	if (daemon_ == NULL)
		die("cannot start the HTTP server");
	source.fd = MHD_get_daemon_info(daemon_, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
	source.ready = daemon_ready;
	loop_watch(&source, EPOLLIN);
}

int
server_run(void)
{
	MHD_UNSIGNED_LONG_LONG timeout;

	MHD_run(daemon_);
	if (MHD_get_timeout(daemon_, &timeout) != MHD_YES || timeout > 1000)
		return 1000;
	return (int) timeout;
}

void
server_quiesce(void)
{
	stopping = true;
	close(MHD_quiesce_daemon(daemon_));
}

bool
server_is_busy(void)
{
	return requests > 0;
}

void
server_stop(void)
{
	MHD_stop_daemon(daemon_);
}
