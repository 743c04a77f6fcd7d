/**
 * poll.js: follows tables that poll_ext tracks, over HTTP.
 *
 * One loop does it all: ask what changed since the cursor, hand that over, keep
 * the new cursor, wait. A cursor counts only when the handlers have resolved, so
 * every change is delivered at least once, in order. How long to wait is decided
 * in three places: after an answer (#answered), after an expired cursor (#expired)
 * and after an error (#failed).
 *
 * A request may ask the server to hold it until there is news. Then what cannot wait
 * ends it (#release), and it is as if it had not been made.
 *
 * All times are in milliseconds, but for what goes to the server and the option wait.
 */

const JITTER = 0.1; // a wait is up to a tenth longer, so that clients do not ask in step
const PATIENCE = 3; // from so many empty polls in a row on, the adaptive interval grows
const MAX_URL = 4000; // characters; what is longer goes by POST
const MAX_TIMER = 2 ** 31 - 1; // a longer timer fires at once
const MAX_WAIT = 25; // seconds; no server waits longer
const HONOURED = 0.9; // who has waited so much of what was asked for knows wait
const RELEASED = new Error('a held request has ended');

/** Why a poll failed. `fatal`: the poller has stopped, since asking again cannot help. */
export class PollError extends Error {
	name = 'PollError';

	constructor(message, { status = 0, problem = {}, retryAfter = null, cause } = {}) {
		super(message, { cause });
		this.status = status; // of HTTP; 0: there was no answer
		this.code = problem.code ?? null; // SQLSTATE
		this.reason = problem.reason ?? problem.details ?? null; // PostgREST says details
		this.hint = problem.hint ?? null;
		this.retryAfter = retryAfter;
		this.fatal = status >= 300 && status < 500 && ![304, 408, 410, 425, 429].includes(status);
	}
}

/** The text under which a Mirror keeps the row with this key. */
export function keyOf(key) {
	return JSON.stringify(key);
}

/**
 * Applies a feed's changes to a Map of rows by keyOf(key). They come in order, and
 * a row is never older than what came before, so the last one counts.
 */
export function applyChanges(map, changes) {
	for (const { op, key, data } of changes) {
		if (op === 'upsert') map.set(keyOf(key), data);
		else if (op === 'delete') map.delete(keyOf(key));
		else if (op === 'truncate') map.clear();
		else throw new Error(`unknown operation ${op}`);
	}
	return map;
}

/** A copy of a feed: a Map of rows by keyOf(key). */
export class Mirror extends Map {
	apply(changes) {
		return applyChanges(this, changes);
	}

	/** The row with this key, such as {id: 7} */
	row(key) {
		return this.get(keyOf(key));
	}
}

/** Follows feeds. README.md has the options. */
export class Poller {
	/** May be changed at any time, and counts from the next poll on. */
	adaptive;
	/** The current one, without jitter. */
	interval;
	/** "stopped", "polling", "waiting", or "paused" while the page is hidden */
	state = 'stopped';
	/** When it is going to poll next, as Date.now(); null while it polls or is stopped. */
	nextPoll = null;
	/** What has been handed over; null: nothing yet. */
	cursor = null;

	#options;
	#url;
	#feeds;
	#fixed; // the interval that was asked for
	#loaded = false; // the cursor, from the store
	#tag = null; // {url, etag} of the last answer
	#asked = null; // the interval that the last answer asked for
	#news = 0; // changes since the last complete answer
	#empty = 0; // empty polls in a row
	#more = false; // the next page is there
	#complete = false; // the last answer was the last page
	#resets = 0; // expired cursors in a row
	#retryAt = 0; // not before, says Retry-After
	#again = false; // pollNow() was called, for the next poll
	#quick = false; // and this is that poll: the server is not to hold it
	#arm = null; // while waiting: sets another time to poll
	#release = null; // while the server holds a request: ends it
	#controller = null;
	#loop = null;

	constructor(options) {
		const o = {
			url: '/poll',
			interval: 5000,
			adaptive: false,
			wait: 0,
			timeout: 30000,
			pauseHidden: true,
			fetch: (...args) => fetch(...args),
			onError: (error) => console.error(error),
			...options,
		};
		o.minInterval ??= Math.min(1000, o.interval);
		o.maxInterval ??= Math.max(60000, o.interval);
		checkOptions(o);
		this.#options = o;
		this.#url = new URL(o.url, globalThis.document?.baseURI ?? globalThis.location?.href);
		this.#feeds = Array.isArray(o.feeds) ? o.feeds : Object.keys(o.feeds);
		this.adaptive = o.adaptive;
		this.interval = this.#fixed = o.interval;
	}

	/** Begins, or goes on after stop(). */
	start() {
		const outer = this.#options.signal;
		if (this.#controller || outer?.aborted) return this;
		this.#controller = new AbortController();
		const { signal } = this.#controller;
		const on = (target, event, listener) => target?.addEventListener?.(event, listener, { signal });
		on(outer, 'abort', () => this.stop());
		on(globalThis, 'online', () => {
			this.#release?.(); // of a connection that may be gone
			this.#arm?.(Date.now());
		});
		on(globalThis.document, 'visibilitychange', () => {
			if (this.#hidden()) this.#release?.();
			this.#arm?.(this.#hidden() ? this.nextPoll : Date.now());
		});
		this.#setState('waiting');
		this.#loop = this.#run(signal, this.#loop);
		return this;
	}

	/** Ends, also a request under way. Resolves when a handler that is running has ended: do not await it in one. */
	async stop() {
		this.#controller?.abort();
		this.#controller = null;
		this.#setState('stopped');
		await this.#loop;
	}

	/** Polls at once, though not before a Retry-After is over. */
	pollNow() {
		this.#again = this.#controller !== null;
		this.#release?.();
		this.#arm?.(Date.now(), true);
	}

	// ---- the loop ----

	async #run(signal, previous) {
		await previous;
		let wait = 0;
		while (!signal.aborted) {
			await this.#rest(wait, signal);
			if (!signal.aborted) wait = await this.#poll(signal);
		}
	}

	/** Waits, and for as long as the page is hidden. */
	#rest(wait, signal) {
		return new Promise((resolve) => {
			let timer;
			const done = () => {
				clearTimeout(timer);
				signal.removeEventListener('abort', done);
				this.#arm = this.nextPoll = null;
				resolve();
			};
			signal.addEventListener('abort', done);
			this.#arm = (time, anyway) => {
				clearTimeout(timer);
				this.nextPoll = Math.max(time, this.#retryAt);
				const left = this.nextPoll - Date.now();
				const paused = this.#hidden() && !anyway;
				if (!paused && left <= 0) return done();
				if (!paused) timer = setTimeout(done, Math.min(left, MAX_TIMER));
				this.#setState(paused ? 'paused' : 'waiting'); // last: the callback may call us
			};
			this.#arm(Date.now() + (this.#again ? 0 : wait), this.#again);
		});
	}

	/** One request and what follows from it. Returns how long to wait. */
	async #poll(signal) {
		const poll = { status: 0, changes: 0, bytes: 0, duration: 0, etag: null, more: false, error: null };
		this.#quick = this.#again;
		this.#again = false;
		this.#asked = null;
		this.#setState('polling');
		try {
			poll.wait = await this.#exchange(poll, signal);
		} catch (error) {
			if (signal.aborted || error === RELEASED) return 0;
			poll.error = asPollError(error, poll.status);
			poll.wait = this.#failed(poll.error);
		}
		this.#call('onPoll', { ...poll, interval: this.interval });
		return poll.wait;
	}

	async #exchange(poll, signal) {
		if (!this.#loaded) {
			this.cursor = (await this.#options.store?.load()) ?? null;
			this.#loaded = true;
		}
		const request = await this.#request();
		const response = await this.#fetch(request, poll, signal);
		const early = poll.duration < HONOURED * request.hold;
		if (response.status === 200) return this.#deliver(request, response.json(), poll, early);
		if (response.status === 304 && request.headers.has('If-None-Match')) return this.#answered(0, early);
		if (response.status === 410) return this.#expired();
		throw problemError(response);
	}

	// ---- request and response ----

	async #request() {
		const { from, scope, maxRows, headers } = this.#options;
		const cursor = this.cursor ?? from;
		const url = new URL(this.#url);
		const request = { headers: new Headers(typeof headers === 'function' ? await headers() : headers), cache: 'no-store' };
		const wait = this.#mayWait() ? this.#options.wait : 0;
		request.hold = wait * 1000;
		const names = this.#feeds.map(encodeURIComponent).join(',');
		const query = [
			this.#url.search.slice(1),
			`feeds=${url.pathname.includes('/rpc/') ? `%7B${names}%7D` : names}`, // {a,b}: an array for PostgREST
			scope && `scope=${encodeURIComponent(JSON.stringify(scope))}`,
			maxRows && `max_rows=${maxRows}`,
			cursor && `cursor=${encodeURIComponent(cursor)}`,
			wait && `wait=${wait}`,
		];
		url.search = query.filter(Boolean).join('&');
		if (url.href.length <= MAX_URL) {
			if (this.#tag?.url === url.href) request.headers.set('If-None-Match', this.#tag.etag);
			return { ...request, url: url.href };
		}
		request.headers.set('Content-Type', 'application/json');
		const body = JSON.stringify({ feeds: this.#feeds, scope, max_rows: maxRows, cursor, wait: wait || undefined });
		return { ...request, url: this.#url.href, method: 'POST', body };
	}

	/** The server may hold the request, unless somebody wants an answer now. */
	#mayWait() {
		return this.cursor && !this.#more && !this.#quick && !this.#again && !this.#hidden();
	}

	/** The response with its whole body, within the timeout. */
	async #fetch({ url, hold, ...init }, poll, signal) {
		signal.throwIfAborted();
		const timeout = this.#options.timeout + hold;
		const started = Date.now();
		const controller = new AbortController();
		const abort = () => controller.abort();
		const timer = setTimeout(() => controller.abort(new PollError(`no answer within ${timeout / 1000} s`)), timeout);
		signal.addEventListener('abort', abort);
		if (hold) this.#release = () => controller.abort(RELEASED);
		try {
			const response = await this.#read(url, { ...init, signal: controller.signal });
			signal.throwIfAborted();
			Object.assign(poll, { status: response.status, bytes: response.bytes, etag: response.headers.get('ETag') });
			this.#asked = seconds(response.headers.get('X-Poll-Interval'));
			return response;
		} catch (error) {
			throw controller.signal.aborted ? controller.signal.reason : error;
		} finally {
			poll.duration = Date.now() - started;
			clearTimeout(timer);
			this.#release = null;
			signal.removeEventListener('abort', abort);
		}
	}

	async #read(url, init) {
		const response = await this.#options.fetch(url, init);
		const buffer = await response.arrayBuffer();
		const json = () => JSON.parse(new TextDecoder().decode(buffer));
		return { status: response.status, headers: response.headers, bytes: buffer.byteLength, json };
	}

	// ---- what follows ----

	async #deliver({ url, method }, answer, poll, early) {
		const { feeds, onChanges } = this.#options;
		const lists = Object.entries(answer.changes).filter(([, changes]) => changes.length > 0);
		poll.changes = lists.reduce((sum, [, changes]) => sum + changes.length, 0);
		poll.more = answer.has_more;
		if (!Array.isArray(feeds)) for (const [feed, changes] of lists) await feeds[feed](changes, answer);
		else if (poll.changes > 0) await onChanges(answer.changes, answer);

		// While there is more, a 304 must not say that nothing is new.
		this.#tag = poll.etag && !method && !answer.has_more ? { url, etag: poll.etag } : null;
		if (answer.cursor !== this.cursor) await this.#keep(answer.cursor);
		return this.#answered(poll.changes, early, answer);
	}

	/**
	 * The interval after an answer; a series of pages counts as one. Early: the server
	 * has not held the request as long as it was asked to.
	 */
	#answered(changes, early, answer = {}) {
		this.#news += changes;
		this.#more = answer.has_more === true;
		if (answer.behind) return spread(this.#options.minInterval);
		if (answer.has_more) return 0;
		this.#empty = this.#news ? 0 : this.#empty + 1;
		if (!this.adaptive) this.#setInterval(this.#fixed);
		else if (this.#asked !== null) this.#setInterval(this.#asked);
		else if (this.#news) this.#setInterval(this.interval * 0.5);
		else this.#setInterval(this.#empty >= PATIENCE ? this.interval * 1.5 : this.interval);
		this.#news = 0;
		// Expired cursors are in a row unless a full sync and another poll went well.
		if (this.#complete) this.#resets = 0;
		this.#complete = true;
		const atOnce = this.#options.wait > 0 && (changes > 0 || !early);
		return atOnce ? 0 : spread(this.interval);
	}

	/** The first time in a row a full sync follows at once. */
	async #expired() {
		await this.#options.onReset?.();
		this.#tag = null;
		this.#complete = false;
		await this.#keep(null);
		return this.#resets++ ? Math.random() * this.#clamp(this.interval * 2 ** (this.#resets - 1)) : 0;
	}

	/** Full jitter: any time from now to twice the interval, but after a Retry-After. */
	#failed(error) {
		this.#setInterval(this.interval * 2);
		if (error.fatal) this.stop();
		this.#call('onError', error);
		const retry = error.retryAfter === null ? 0 : spread(error.retryAfter);
		this.#retryAt = Date.now() + retry;
		return Math.max(retry, Math.random() * this.interval);
	}

	/** Not to be able to save is no reason to stand still: a restart gets more again. */
	async #keep(cursor) {
		this.cursor = cursor;
		try {
			await this.#options.store?.save(cursor);
		} catch (cause) {
			this.#call('onError', new PollError(`cannot save the cursor: ${cause.message}`, { cause }));
		}
	}

	// ---- small things ----

	#clamp(interval) {
		return Math.min(Math.max(interval, this.#options.minInterval), this.#options.maxInterval);
	}

	#setInterval(interval) {
		this.interval = this.#clamp(interval);
	}

	#hidden() {
		return this.#options.pauseHidden && globalThis.document?.hidden === true;
	}

	#setState(state) {
		if (state === this.state) return;
		this.state = state;
		this.#call('onState', state);
	}

	/** An error in a callback that only looks on must not end the loop. */
	#call(name, argument) {
		try {
			Promise.resolve(this.#options[name]?.(argument)).catch((error) => console.error(error));
		} catch (error) {
			console.error(error);
		}
	}
}

function checkOptions({ feeds, onChanges, minInterval, interval, maxInterval, wait, timeout }) {
	const names = Array.isArray(feeds) ? feeds : Object.keys(feeds ?? {});
	if (names.length === 0) throw new TypeError('feeds must name at least one feed');
	const handlers = Array.isArray(feeds) ? [onChanges] : Object.values(feeds);
	if (!handlers.every((handler) => typeof handler === 'function'))
		throw new TypeError('feeds must be an array, with onChanges, or an object of handlers');
	if (!(minInterval > 0 && minInterval <= interval && interval <= maxInterval && maxInterval < Infinity))
		throw new RangeError('it must be that 0 < minInterval <= interval <= maxInterval');
	if (!(Number.isInteger(wait) && wait >= 0 && wait <= MAX_WAIT)) throw new RangeError(`wait must be whole seconds, at most ${MAX_WAIT}`);
	if (!(timeout > 0 && timeout + wait * 1000 <= MAX_TIMER)) throw new RangeError('timeout must be milliseconds');
}

function spread(time) {
	return time * (1 + JITTER * Math.random());
}

/** Of a header with a number of seconds; null if it is not one. */
function seconds(value) {
	return /^\d+(\.\d+)?$/.test(value ?? '') ? value * 1000 : null;
}

function retryAfter(headers) {
	const value = headers.get('Retry-After');
	// by the server's clock, if it tells the time
	const date = Date.parse(value) - (Date.parse(headers.get('Date')) || Date.now());
	return seconds(value) ?? (Number.isNaN(date) ? null : Math.max(date, 0));
}

function asPollError(error, status) {
	return error instanceof PollError ? error : new PollError(String(error?.message ?? error), { status, cause: error });
}

function problemError({ status, headers, json }) {
	let problem = {};
	try {
		problem = json() ?? {};
	} catch {
		// not by poll_ext: a proxy, say
	}
	return new PollError(problem.detail ?? problem.message ?? `the answer has status ${status}`, { status, problem, retryAfter: retryAfter(headers) });
}
