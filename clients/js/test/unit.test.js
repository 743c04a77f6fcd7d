// The rules of the poller, with a server and a clock that are made up

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Mirror, PollError, Poller, applyChanges, keyOf } from '../poll.js';

const START = Date.parse('2026-01-02T03:04:05Z');

const upsert = (id, data = {}) => ({ op: 'upsert', key: { id }, data: { id, ...data }, version: null });
const gone = (id) => ({ op: 'delete', key: { id }, data: null, version: 1 });

function answer(cursor, changes = [], { headers = {}, ...more } = {}) {
	const body = { changes: { tasks: changes }, cursor, has_more: false, timestamp: null, feeds_checked: 1, poll_after: 4, ...more };
	return () => new Response(JSON.stringify(body), { status: 200, headers });
}

function status(code, headers = {}, body = null) {
	return () => new Response(body && JSON.stringify(body), { status: code, headers });
}

const unchanged = status(304);

function broken() {
	throw new TypeError('fetch failed');
}

/** A server that never answers */
function silent(url, { signal }) {
	return new Promise((resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
}

/** A clock that stands still, but for pass(milliseconds). */
function makeClock(t) {
	const timers = new Map();
	let now = START;
	let last = 0;
	t.mock.method(Date, 'now', () => now);
	t.mock.method(globalThis, 'clearTimeout', (timer) => timers.delete(timer));
	t.mock.method(globalThis, 'setTimeout', (callback, delay) => {
		timers.set(++last, { callback, time: now + (delay < 2 ** 31 ? delay : 1) });
		return last;
	});
	return async function pass(time) {
		const end = now + time;
		for (;;) {
			const [first] = [...timers].sort(([, a], [, b]) => a.time - b.time);
			if (!first || first[1].time > end) break;
			timers.delete(first[0]);
			now = first[1].time;
			first[1].callback();
			await settle();
		}
		now = end;
		await settle();
	};
}

/**
 * A poller of feed "tasks" with a server that gives these answers, and the last one
 * for ever. Math.random() is world.random: with 0, waits are not spread.
 */
function makeWorld(t, options = {}, answers = []) {
	const world = { pass: makeClock(t), answers, random: 0, requests: [], polls: [], errors: [], states: [], delivered: [], resets: 0 };
	t.mock.method(Math, 'random', () => world.random);
	world.poller = new Poller({
		url: 'http://server.test/poll',
		feeds: ['tasks'],
		interval: 4000,
		fetch: async (url, init) => {
			world.requests.push({ url, init, time: Date.now() - START, tag: init.headers.get('If-None-Match') });
			if (world.requests.length > 200) return silent(url, init); // it would never end
			return (answers.length > 1 ? answers.shift() : answers[0])(url, init);
		},
		onChanges: ({ tasks }) => world.delivered.push(tasks.map(({ key }) => key.id)),
		onReset: () => world.resets++,
		onPoll: (poll) => world.polls.push(poll),
		onError: (error) => world.errors.push(error),
		onState: (state) => world.states.push(state),
		...options,
	});
	world.waits = () => world.polls.map(({ wait }) => wait);
	world.intervals = () => world.polls.map(({ interval }) => interval);
	world.times = () => world.requests.map(({ time }) => time);
	world.cursors = () => world.requests.map(({ url }) => new URL(url).searchParams.get('cursor'));
	world.asked = () => world.requests.map(({ url }) => new URL(url).searchParams.get('wait'));
	world.start = () => (world.poller.start(), settle());
	t.after(() => world.poller.stop());
	return world;
}

async function settle() {
	for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** A document that can be hidden, for the time of a test */
function makeDocument(t) {
	const page = new EventTarget();
	page.hidden = false;
	page.hide = (hidden) => {
		page.hidden = hidden;
		page.dispatchEvent(new Event('visibilitychange'));
	};
	globalThis.document = page;
	t.after(() => delete globalThis.document);
	return page;
}

// ---- requests ----

test('a request names feeds, scope, rows and the cursor', async (t) => {
	const world = makeWorld(t, { url: 'http://server.test/poll?k=1', feeds: ['a', 'b'], scope: { room_id: 7 }, maxRows: 10 }, [
		answer('c/1'),
	]);
	await world.start();
	await world.pass(4000);
	const query = '?k=1&feeds=a,b&scope=%7B%22room_id%22%3A7%7D&max_rows=10';
	assert.deepEqual(
		world.requests.map(({ url }) => url),
		[`http://server.test/poll${query}`, `http://server.test/poll${query}&cursor=c%2F1`],
	);
	assert.equal(world.requests[0].init.cache, 'no-store');
});

test('from: "now" is the first cursor, and the one after a reset', async (t) => {
	const world = makeWorld(t, { from: 'now' }, [answer('c1'), status(410), answer('c2')]);
	await world.start();
	await world.pass(4000);
	assert.deepEqual(world.cursors(), ['now', 'c1', 'now']);
});

test('under /rpc/ the feeds are an array as PostgREST writes it, and its errors are understood', async (t) => {
	const error = { code: 'PT404', message: 'unknown feed', details: 'because', hint: null };
	const world = makeWorld(t, { url: 'http://server.test/rpc/poll', feeds: ['a', 'b'] }, [status(404, {}, error)]);
	await world.start();
	assert.equal(world.requests[0].url, 'http://server.test/rpc/poll?feeds=%7Ba,b%7D');
	const { message, code, reason } = world.errors[0];
	assert.deepEqual([message, code, reason], ['unknown feed', 'PT404', 'because']);
});

test('a long URL becomes a POST without a tag', async (t) => {
	const feeds = Array.from({ length: 100 }, (_, i) => `${i}`.padStart(60, 'f'));
	const world = makeWorld(t, { feeds, scope: { a: 1 } }, [answer('c1', [], { headers: { ETag: 'W/"1"' } })]);
	await world.start();
	await world.pass(4000);
	const { url, init, tag } = world.requests[1];
	assert.equal(url, 'http://server.test/poll');
	assert.equal(init.method, 'POST');
	assert.equal(init.headers.get('Content-Type'), 'application/json');
	assert.deepEqual(JSON.parse(init.body), { feeds, scope: { a: 1 }, cursor: 'c1' });
	assert.equal(tag, null);
});

test('headers may be a function, which is asked each time', async (t) => {
	let count = 0;
	const world = makeWorld(t, { headers: async () => ({ Authorization: `Bearer ${++count}` }) }, [answer('c1')]);
	await world.start();
	await world.pass(4000);
	assert.deepEqual(
		world.requests.map(({ init }) => init.headers.get('Authorization')),
		['Bearer 1', 'Bearer 2'],
	);
});

// ---- tags ----

test('a tag goes back only to the URL that it came from, and 304 is an empty poll', async (t) => {
	const world = makeWorld(t, {}, [
		answer('c1', [upsert(1)], { headers: { ETag: 'W/"1"' } }),
		answer('c1', [], { headers: { ETag: 'W/"2"' } }),
		unchanged,
	]);
	await world.start();
	await world.pass(4000);
	await world.pass(4000);
	assert.deepEqual(
		world.requests.map(({ tag }) => tag),
		[null, null, 'W/"2"'],
	);
	assert.deepEqual(
		world.polls.map(({ status, changes, error }) => [status, changes, error]),
		[[200, 1, null], [200, 0, null], [304, 0, null]],
	);
	assert.deepEqual(world.delivered, [[1]]);
});

test('the tag of an answer that was not handed over is not used', async (t) => {
	const world = makeWorld(t, { onChanges: () => assert.fail('no') }, [answer('c1', [upsert(1)], { headers: { ETag: 'W/"1"' } })]);
	world.random = 1;
	await world.start();
	await world.pass(8000);
	assert.deepEqual(
		world.requests.map(({ tag }) => tag),
		[null, null],
	);
});

test('a 304 that was not asked for is an error', async (t) => {
	const world = makeWorld(t, {}, [unchanged]);
	world.random = 1;
	await world.start();
	assert.equal(world.errors[0].status, 304);
	assert.equal(world.errors[0].fatal, false);
});

// ---- pages ----

test('while there is more, the next page is asked for at once', async (t) => {
	const world = makeWorld(t, {}, [
		answer('c1', [upsert(1)], { has_more: true }),
		answer('c2', [upsert(2)], { has_more: true }),
		answer('c3', [upsert(3)]),
	]);
	await world.start();
	assert.deepEqual(world.times(), [0, 0, 0]);
	assert.deepEqual(world.cursors(), [null, 'c1', 'c2']);
	assert.deepEqual(world.delivered, [[1], [2], [3]]);
	assert.deepEqual(world.waits(), [0, 0, 4000]);
	assert.deepEqual(world.states, ['waiting', 'polling', 'waiting']);
});

test('an answer that is behind is asked again soon, without its tag', async (t) => {
	const world = makeWorld(t, {}, [
		answer('c1', [upsert(1)], { has_more: true }),
		answer('c1', [], { has_more: true, behind: true, headers: { ETag: 'W/"1"' } }),
	]);
	await world.start();
	await world.pass(1000);
	assert.deepEqual(world.times(), [0, 0, 1000]);
	assert.equal(world.requests[2].tag, null);
});

// ---- delivery ----

test('an object of feeds gives each its own changes, in one answer', async (t) => {
	const seen = [];
	const feeds = { a: (changes, { cursor }) => seen.push(['a', changes.length, cursor]), b: (changes) => seen.push(['b', changes.length]), c: () => seen.push('c') };
	const world = makeWorld(t, { feeds }, [answer('c1', [], { changes: { a: [upsert(1), upsert(2)], b: [gone(3)], c: [] } })]);
	await world.start();
	assert.match(world.requests[0].url, /feeds=a,b,c$/);
	assert.deepEqual(seen, [['a', 2, 'c1'], ['b', 1]]);
	assert.equal(world.polls[0].changes, 3);
});

test('the cursor is saved after the handlers have resolved', async (t) => {
	const log = [];
	let finish;
	const store = { load: async () => (log.push('load'), 'c0'), save: async (cursor) => log.push(`save ${cursor}`) };
	const onChanges = () => new Promise((resolve) => (log.push('changes'), (finish = resolve)));
	const world = makeWorld(t, { store, onChanges }, [answer('c1', [upsert(1)]), answer('c1')]);
	await world.start();
	assert.deepEqual(world.cursors(), ['c0']);
	assert.deepEqual(log, ['load', 'changes']);
	finish();
	await settle();
	assert.deepEqual(log, ['load', 'changes', 'save c1']);
	await world.pass(4000);
	assert.deepEqual(log, ['load', 'changes', 'save c1']); // it is the same
});

test('what a handler refuses comes again, later, from the same cursor', async (t) => {
	let failures = 2;
	const saved = [];
	const seen = [];
	const world = makeWorld(
		t,
		{
			store: { load: () => null, save: (cursor) => saved.push(cursor) },
			onChanges: () => {
				seen.push(Date.now() - START);
				if (failures-- > 0) throw new Error('disk full');
			},
		},
		[answer('c1', [upsert(1)])],
	);
	world.random = 1;
	await world.start();
	assert.deepEqual(saved, []);
	assert.equal(world.errors[0].message, 'disk full');
	assert.equal(world.errors[0].fatal, false);
	await world.pass(8000);
	await world.pass(16000);
	assert.deepEqual(seen, [0, 8000, 24000]);
	assert.deepEqual(world.cursors(), [null, null, null]);
	assert.deepEqual(saved, ['c1']);
});

test('a cursor that cannot be saved is reported, and polling goes on', async (t) => {
	const store = { load: () => null, save: () => Promise.reject(new Error('quota')) };
	const world = makeWorld(t, { store }, [answer('c1')]);
	await world.start();
	await world.pass(4000);
	assert.equal(world.errors[0].message, 'cannot save the cursor: quota');
	assert.deepEqual(world.cursors(), [null, 'c1']);
});

test('the handlers of feeds are waited for, one after the other', async (t) => {
	const finish = [];
	const wait = () => new Promise((resolve) => finish.push(resolve));
	const world = makeWorld(t, { feeds: { a: wait, b: wait } }, [answer('c1', [], { changes: { a: [upsert(1)], b: [upsert(2)] } })]);
	await world.start();
	assert.equal(finish.length, 1);
	finish[0]();
	await settle();
	assert.deepEqual([finish.length, world.poller.cursor], [2, null]);
	finish[1]();
	await settle();
	assert.equal(world.poller.cursor, 'c1');
});

test('a store that cannot load is asked again', async (t) => {
	let tries = 0;
	const store = { load: () => (tries++ ? 'c7' : Promise.reject(new Error('locked'))), save: () => {} };
	const world = makeWorld(t, { store }, [answer('c7')]);
	world.random = 1;
	await world.start();
	assert.equal(world.requests.length, 0);
	await world.pass(8000);
	assert.deepEqual(world.cursors(), ['c7']);
});

// ---- intervals ----

test('a fixed interval is up to a tenth longer, never shorter', async (t) => {
	const world = makeWorld(t, {}, [answer('c1', [upsert(1)]), answer('c1')]);
	await world.start();
	world.random = 0.5;
	await world.pass(4000);
	world.random = 1;
	await world.pass(4200);
	assert.deepEqual(world.times(), [0, 4000, 8200]);
	const waits = world.waits().map(Math.round);
	assert.deepEqual(waits, [4000, 4200, 4400]);
	assert.deepEqual(world.intervals(), [4000, 4000, 4000]);
});

test('adaptive: halved by changes, half as long again from the third empty poll in a row on', async (t) => {
	const world = makeWorld(t, { adaptive: true }, [
		answer('c1', [upsert(1)]),
		answer('c2', [upsert(2)]),
		...[3, 3, 3, 3].map(() => answer('c2')),
		answer('c3', [upsert(3)]),
		...[3, 3, 3].map(() => answer('c3')),
	]);
	await world.start();
	for (let i = 0; i < 9; i++) await world.pass(world.waits().at(-1));
	assert.deepEqual(world.intervals(), [2000, 1000, 1000, 1000, 1500, 2250, 1125, 1125, 1125, 1687.5]);
});

test('adaptive: within minInterval and maxInterval', async (t) => {
	const options = { adaptive: true, interval: 4000, minInterval: 3000, maxInterval: 5000 };
	const world = makeWorld(t, options, [answer('c1', [upsert(1)]), answer('c1')]);
	await world.start();
	for (let i = 0; i < 6; i++) await world.pass(world.waits().at(-1));
	assert.deepEqual(world.intervals(), [3000, 3000, 3000, 4500, 5000, 5000, 5000]);
});

test('adaptive: an error doubles the interval, which stays', async (t) => {
	const world = makeWorld(t, { adaptive: true }, [answer('c1'), broken, status(500), answer('c1')]);
	world.random = 1;
	await world.start();
	for (let i = 0; i < 3; i++) await world.pass(world.waits().at(-1));
	assert.deepEqual(world.intervals(), [4000, 8000, 16000, 16000]);
});

test('adaptive: a series of pages counts as one poll', async (t) => {
	const world = makeWorld(t, { adaptive: true }, [
		answer('c1', [upsert(1)], { has_more: true }),
		answer('c2', [upsert(2)], { has_more: true }),
		answer('c3'),
	]);
	await world.start();
	assert.deepEqual(world.intervals(), [4000, 4000, 2000]);
});

test('adaptive can be switched off and on', async (t) => {
	const world = makeWorld(t, { adaptive: true }, [answer('c1', [upsert(1)]), answer('c1'), answer('c2', [upsert(2)])]);
	await world.start();
	world.poller.adaptive = false;
	await world.pass(2000);
	world.poller.adaptive = true;
	await world.pass(4000);
	assert.deepEqual(world.intervals(), [2000, 4000, 2000]);
});

for (const adaptive of [false, true])
	test(`X-Poll-Interval is ${adaptive ? 'an adaptive interval, within the limits' : 'not for a fixed one'}`, async (t) => {
		const asking = (value) => answer('c1', [upsert(1)], { headers: { 'X-Poll-Interval': value } });
		const world = makeWorld(t, { adaptive }, [asking('2.5'), asking('0.1'), asking('1000'), asking('soon'), answer('c1')]);
		await world.start();
		for (let i = 0; i < 3; i++) await world.pass(world.waits().at(-1));
		assert.deepEqual(world.intervals(), adaptive ? [2500, 1000, 60000, 30000] : [4000, 4000, 4000, 4000]);
		assert.deepEqual(world.waits(), world.intervals());
	});

// ---- long polls ----

/** A server that knows wait: nothing is new when it is over. */
const held = (reply, after) => (url, { signal }) =>
	new Promise((resolve, reject) => {
		const asked = Number(new URL(url).searchParams.get('wait'));
		setTimeout(() => resolve(reply()), after ?? asked * 1000);
		signal.addEventListener('abort', () => reject(signal.reason));
	});

test('wait is asked for with a cursor, and not for the next page', async (t) => {
	const more = answer('c2', [upsert(2)], { has_more: true });
	const world = makeWorld(t, { wait: 20 }, [answer('c1'), more, answer('c3', [upsert(3)]), held(answer('c3')), status(410), answer('c4'), silent]);
	await world.start();
	await world.pass(20000);
	assert.deepEqual(world.cursors(), [null, 'c1', 'c2', 'c3', 'c3', null, 'c4']);
	assert.deepEqual(world.asked(), [null, '20', null, '20', '20', null, '20']);
});

test('nor without the option, nor with from: "now"', async (t) => {
	const world = makeWorld(t, { wait: 0, from: 'now' }, [answer('c1')]);
	await world.start();
	await world.pass(4000);
	assert.deepEqual(world.asked(), [null, null]);
	const waiting = makeWorld(t, { wait: 20, from: 'now' }, [answer('c1'), silent]);
	await waiting.start();
	assert.deepEqual(waiting.cursors(), ['now', 'c1']);
	assert.deepEqual(waiting.asked(), [null, '20']);
});

test('a POST says wait in its body', async (t) => {
	const feeds = Array.from({ length: 100 }, (_, i) => `${i}`.padStart(60, 'f'));
	const world = makeWorld(t, { feeds, wait: 20 }, [answer('c1'), silent]);
	await world.start();
	assert.deepEqual(
		world.requests.map(({ init }) => JSON.parse(init.body)),
		[{ feeds }, { feeds, cursor: 'c1', wait: 20 }],
	);
});

for (const adaptive of [false, true])
	test(`after a wait or changes the next poll follows at once, the interval ${adaptive ? 'adaptive' : 'fixed'}`, async (t) => {
		const ETag = 'W/"1"';
		const world = makeWorld(t, { wait: 20, adaptive }, [
			answer('c1', [upsert(1)]),
			held(answer('c1', [], { headers: { ETag } })),
			held(unchanged),
			held(answer('c2', [upsert(2)]), 3000),
			held(answer('c2'), 18000), // a clock is not exact
			silent,
		]);
		world.random = 1;
		await world.start();
		await world.pass(70000);
		assert.deepEqual(world.times(), [0, 0, 20000, 40000, 43000, 61000]);
		assert.deepEqual(world.waits(), [0, 0, 0, 0, 0]);
		assert.deepEqual(
			world.requests.map(({ tag }) => tag),
			[null, null, ETag, ETag, null, null],
		);
		assert.deepEqual(world.delivered, [[1], [2]]);
		assert.deepEqual(world.errors, []);
	});

for (const [name, early] of [['200', answer('c1', [], { headers: { ETag: 'W/"1"' } })], ['304', unchanged]])
	test(`a server that does not wait is polled as without the option: ${name}`, async (t) => {
		const world = makeWorld(t, { wait: 20 }, [answer('c1'), answer('c1', [], { headers: { ETag: 'W/"1"' } }), early]);
		await world.start();
		await world.pass(12000);
		assert.deepEqual(world.times(), [0, 0, 4000, 8000, 12000]);
	});

test('nor is one polled at once that has waited for less, as its limit is', async (t) => {
	const world = makeWorld(t, { wait: 20 }, [answer('c1'), held(answer('c1'), 10000)]);
	await world.start();
	await world.pass(28000);
	assert.deepEqual(world.times(), [0, 0, 14000, 28000]);
});

test('an adaptive interval that a server asks for is for answers that come early', async (t) => {
	const headers = { 'X-Poll-Interval': '7' };
	const world = makeWorld(t, { wait: 20, adaptive: true }, [answer('c1'), answer('c1', [], { headers }), held(answer('c1', [], { headers })), silent]);
	await world.start();
	await world.pass(27000);
	assert.deepEqual(world.times(), [0, 0, 7000, 27000]);
});

test('an answer that is behind is asked again soon, and not held', async (t) => {
	const world = makeWorld(t, { wait: 20 }, [answer('c1'), answer('c1', [], { has_more: true, behind: true }), silent]);
	await world.start();
	await world.pass(1000);
	assert.deepEqual(world.times(), [0, 0, 1000]);
	assert.deepEqual(world.asked(), [null, '20', null]);
});

test('errors wait as ever', async (t) => {
	const world = makeWorld(t, { wait: 20 }, [answer('c1'), broken, status(504), status(429, { 'Retry-After': '30' }), silent]);
	world.random = 0.5;
	await world.start();
	await world.pass(50000);
	assert.deepEqual(world.waits(), [0, 4000, 8000, 31500]);
	assert.deepEqual(world.asked(), [null, '20', '20', '20', '20']);
});

test('the timeout begins when the wait is over', async (t) => {
	const world = makeWorld(t, { wait: 20, timeout: 10000 }, [answer('c1'), silent]);
	world.random = 1;
	await world.start();
	await world.pass(29999);
	assert.equal(world.errors.length, 0);
	await world.pass(1);
	assert.equal(world.errors[0].message, 'no answer within 30 s');
	const slow = makeWorld(t, { wait: 20, timeout: 10000 }, [silent]);
	await slow.start();
	await slow.pass(10000);
	assert.equal(slow.errors[0].message, 'no answer within 10 s'); // it was not to be held
});

test('stop ends a request that is held', async (t) => {
	const world = makeWorld(t, { wait: 20 }, [answer('c1'), silent]);
	await world.start();
	await world.poller.stop();
	assert.equal(world.requests[1].init.signal.aborted, true);
	await world.pass(1e6);
	assert.deepEqual([world.requests.length, world.errors], [2, []]);
});

test('pollNow ends a request that is held, and has its answer at once', async (t) => {
	const world = makeWorld(t, { wait: 20 }, [answer('c1'), silent, answer('c1'), silent]);
	await world.start();
	await world.pass(5000);
	world.poller.pollNow();
	await settle();
	assert.equal(world.requests[1].init.signal.aborted, true);
	assert.deepEqual(world.times(), [0, 0, 5000, 5000]);
	assert.deepEqual(world.asked(), [null, '20', null, '20']);
	assert.deepEqual([world.polls.length, world.errors], [2, []]);
});

test('pollNow while it waits, or before the request is made, is not held either', async (t) => {
	let prepare;
	const headers = () => new Promise((resolve) => (prepare = resolve));
	const world = makeWorld(t, { wait: 20, headers }, [answer('c1')]);
	const next = async () => (prepare({}), await settle());
	await world.start();
	await next();
	world.poller.pollNow(); // the second request is not yet made
	await next();
	await next(); // once more after it
	await next();
	await world.pass(1000);
	world.poller.pollNow();
	await settle();
	await next();
	assert.deepEqual(world.times(), [0, 0, 0, 0, 1000]);
	assert.deepEqual(world.asked(), [null, null, null, '20', null]);
	world.poller.stop();
	prepare({});
});

test('a page that is hidden ends a request that is held, and asks again when it is seen', async (t) => {
	const page = makeDocument(t);
	const world = makeWorld(t, { wait: 20 }, [answer('c1'), silent]);
	await world.start();
	page.hide(true);
	await settle();
	assert.equal(world.requests[1].init.signal.aborted, true);
	assert.equal(world.poller.state, 'paused');
	await world.pass(1e6);
	assert.equal(world.requests.length, 2);
	page.hide(false);
	await settle();
	assert.deepEqual(world.times(), [0, 0, 1e6]);
	assert.deepEqual(world.asked(), [null, '20', '20']);
	assert.deepEqual([world.polls.length, world.errors], [1, []]);
});

test('a page that is hidden before the request is made has it not held', async (t) => {
	const page = makeDocument(t);
	const headers = async () => (world.poller.cursor && page.hide(true), {});
	const world = makeWorld(t, { wait: 20, headers }, [answer('c1')]);
	await world.start();
	assert.deepEqual(world.asked(), [null, null]);
	assert.equal(world.poller.state, 'paused');
});

test('a page that is hidden does not end a request that is not held, nor pauseHidden: false one that is', async (t) => {
	const page = makeDocument(t);
	const world = makeWorld(t, { wait: 20 }, [silent]);
	const going = makeWorld(t, { wait: 20, pauseHidden: false }, [answer('c1'), silent]);
	await world.start();
	await going.start();
	page.hide(true);
	await settle();
	assert.equal(world.requests[0].init.signal.aborted, false);
	assert.equal(going.requests[1].init.signal.aborted, false);
});

test('back online, it does not wait for a request that is held', async (t) => {
	const events = new EventTarget();
	globalThis.addEventListener = events.addEventListener.bind(events);
	t.after(() => delete globalThis.addEventListener);
	const world = makeWorld(t, { wait: 20 }, [answer('c1'), silent]);
	await world.start();
	await world.pass(5000);
	events.dispatchEvent(new Event('online'));
	await settle();
	assert.deepEqual(world.times(), [0, 0, 5000]);
	assert.deepEqual(world.asked(), [null, '20', '20']);
	assert.deepEqual(world.errors, []);
});

// ---- errors ----

test('errors of the network and the server: full jitter below an interval that doubles', async (t) => {
	const world = makeWorld(t, {}, [broken, status(500), status(503), status(502), status(500), answer('c1')]);
	world.random = 0.5;
	await world.start();
	for (let i = 0; i < 4; i++) await world.pass(world.waits().at(-1));
	assert.deepEqual(world.waits(), [4000, 8000, 16000, 30000, 30000]); // half of 8, 16, 32, 60, 60 s
	assert.deepEqual(
		world.errors.map(({ status, fatal }) => [status, fatal]),
		[[0, false], [500, false], [503, false], [502, false], [500, false]],
	);
	await world.pass(30000);
	assert.equal(world.intervals().at(-1), 4000); // as before
});

test('an interval that was asked for is no longer when there is no answer', async (t) => {
	const world = makeWorld(t, { adaptive: true }, [answer('c1', [], { headers: { 'X-Poll-Interval': '2' } }), broken]);
	world.random = 1;
	await world.start();
	await world.pass(2200);
	assert.deepEqual(world.intervals(), [2000, 4000]);
});

test('what is not an answer is an error', async (t) => {
	const page = () => new Response('<html>', { status: 200 });
	const world = makeWorld(t, {}, [page, () => new Response('{}'), answer('c1')]);
	world.random = 1;
	await world.start();
	await world.pass(8000);
	assert.deepEqual(
		world.errors.map(({ status, fatal }) => [status, fatal]),
		[[200, false], [200, false]],
	);
	await world.pass(16000);
	assert.equal(world.polls.at(-1).error, null);
});

test('Retry-After in seconds, of 429 and 503', async (t) => {
	const world = makeWorld(t, {}, [status(429, { 'Retry-After': '30' }), status(503, { 'Retry-After': '20' }), answer('c1')]);
	await world.start();
	await world.pass(29999);
	assert.deepEqual(world.times(), [0]);
	await world.pass(1);
	await world.pass(20000);
	assert.deepEqual(world.times(), [0, 30000, 50000]);
	assert.equal(world.errors[0].retryAfter, 30000);
});

test('Retry-After is spread, and no reason to come sooner than after any error', async (t) => {
	const world = makeWorld(t, {}, [status(503, { 'Retry-After': '100' }), status(503, { 'Retry-After': '1' })]);
	world.random = 1;
	await world.start();
	assert.equal(Math.round(world.waits()[0]), 110000);
	await world.pass(110001);
	assert.equal(world.waits()[1], 16000);
});

test('Retry-After as a date, by the clock of the server', async (t) => {
	const date = (time) => new Date(time).toUTCString();
	const world = makeWorld(t, {}, [
		status(429, { 'Retry-After': date(START + 30000) }),
		status(503, { 'Retry-After': date(START + 3640000), Date: date(START + 3600000) }), // its clock is an hour ahead
		status(503, { 'Retry-After': date(START - 1000) }),
		status(503, { 'Retry-After': 'tomorrow' }),
	]);
	await world.start();
	world.random = 0.1;
	await world.pass(30000);
	await world.pass(40400);
	await world.pass(3200);
	assert.deepEqual(world.waits().map(Math.round), [30000, 40400, 3200, 6000]);
	assert.deepEqual(
		world.errors.map(({ retryAfter }) => retryAfter),
		[30000, 40000, 0, null],
	);
});

test('a wait beyond what a timer can hold does not end at once', async (t) => {
	const world = makeWorld(t, {}, [status(429, { 'Retry-After': '9999999' })]);
	await world.start();
	await world.pass(1000000);
	assert.equal(world.requests.length, 1);
	assert.equal(world.poller.nextPoll, START + 9999999000);
});

test('no answer within the timeout is an error of the network', async (t) => {
	const world = makeWorld(t, { timeout: 10000 }, [silent, answer('c1')]);
	world.random = 1;
	await world.start();
	await world.pass(9999);
	assert.equal(world.errors.length, 0);
	await world.pass(1);
	assert.deepEqual([world.errors[0].status, world.errors[0].message], [0, 'no answer within 10 s']);
	assert.equal(world.polls[0].duration, 10000);
	await world.pass(8000);
	assert.equal(world.polls.at(-1).status, 200);
});

test('the timeout counts until the body is there', async (t) => {
	const stuck = (url, { signal }) =>
		new Response(new ReadableStream({ start: (body) => signal.addEventListener('abort', () => body.error(signal.reason)) }));
	const world = makeWorld(t, { timeout: 10000 }, [stuck]);
	world.random = 1;
	await world.start();
	await world.pass(10000);
	assert.equal(world.errors[0].message, 'no answer within 10 s');
});

for (const code of [400, 401, 403, 404, 405])
	test(`${code} stops the poller and says why`, async (t) => {
		const problem = { detail: 'no such thing', code: `PT${code}`, reason: 'because', hint: 'do' };
		const world = makeWorld(t, {}, [status(code, {}, problem)]);
		await world.start();
		await world.pass(1e6);
		assert.equal(world.requests.length, 1);
		assert.equal(world.poller.state, 'stopped');
		const [error] = world.errors;
		assert.ok(error instanceof PollError);
		assert.deepEqual(
			{ ...error, message: error.message },
			{ name: 'PollError', message: 'no such thing', status: code, code: `PT${code}`, reason: 'because', hint: 'do', retryAfter: null, fatal: true },
		);
		assert.equal(world.polls[0].error, error);
	});

test('an error without problem details has a message, too', async (t) => {
	const world = makeWorld(t, {}, [() => new Response('<html>', { status: 404 })]);
	await world.start();
	assert.equal(world.errors[0].message, 'the answer has status 404');
});

// ---- expired cursors ----

test('410: the copy is dropped, then the cursor, and a full sync follows at once', async (t) => {
	const log = [];
	const options = {
		store: { load: () => 'old', save: (cursor) => log.push(`save ${cursor}`) },
		onReset: async () => (await null, log.push('reset')),
		onChanges: () => log.push('changes'),
	};
	const world = makeWorld(t, options, [status(410), answer('c1', [upsert(1)])]);
	await world.start();
	assert.deepEqual(world.times(), [0, 0]);
	assert.deepEqual(world.cursors(), ['old', null]);
	assert.deepEqual(log, ['reset', 'save null', 'changes', 'save c1']);
	assert.equal(world.errors.length, 0);
});

test('410: the full sync is asked for without a tag', async (t) => {
	const world = makeWorld(t, {}, [answer('c1', [], { headers: { ETag: 'W/"1"' } }), status(410), answer('c2')]);
	await world.start();
	await world.pass(4000);
	assert.deepEqual(world.cursors(), [null, 'c1', null]);
	assert.equal(world.requests[2].tag, null);
});

test('410: a reset that fails is tried again', async (t) => {
	let resets = 0;
	const onReset = () => {
		if (!resets++) throw new Error('busy');
	};
	const world = makeWorld(t, { store: { load: () => 'old', save: () => {} }, onReset }, [status(410), status(410), answer('c1')]);
	world.random = 1;
	await world.start();
	assert.equal(world.errors[0].message, 'busy');
	await world.pass(8000);
	assert.deepEqual(world.cursors(), ['old', 'old', null]);
});

test('410 again after the full sync: each further one comes later', async (t) => {
	const loop = Array.from({ length: 4 }, () => [status(410), answer('c1', [upsert(1)])]).flat();
	const world = makeWorld(t, {}, [answer('c0'), ...loop]);
	world.random = 1;
	await world.start();
	for (let i = 0; i < 8; i++) await world.pass(world.waits().at(-1) + 1);
	const waits = world.polls.filter(({ status }) => status === 410).map(({ wait }) => wait);
	assert.deepEqual(waits, [0, 8000, 16000, 32000]);
});

test('410 during a full sync counts as one after it', async (t) => {
	const page = answer('c1', [upsert(1)], { has_more: true });
	const world = makeWorld(t, {}, [page, status(410), page, status(410), answer('c2')]);
	world.random = 0.5;
	await world.start();
	assert.deepEqual(world.waits(), [0, 0, 0, 4000]);
});

test('410 after a poll that went well is the first again', async (t) => {
	const world = makeWorld(t, {}, [answer('c0'), status(410), answer('c1'), answer('c1'), status(410), answer('c2')]);
	await world.start();
	world.random = 1;
	for (let i = 0; i < 4; i++) await world.pass(4400);
	const waits = world.polls.filter(({ status }) => status === 410).map(({ wait }) => wait);
	assert.deepEqual(waits, [0, 0]);
});

// ---- start, stop, pages that are hidden ----

test('stop ends a request, start goes on from the cursor', async (t) => {
	const world = makeWorld(t, {}, [answer('c1'), silent, answer('c1')]);
	await world.start();
	await world.pass(4000);
	await world.poller.stop();
	assert.equal(world.poller.state, 'stopped');
	assert.equal(world.requests[1].init.signal.aborted, true);
	await world.pass(1e6);
	assert.equal(world.requests.length, 2);
	assert.equal(world.errors.length, 0);
	await world.start();
	assert.deepEqual(world.cursors(), [null, 'c1', 'c1']);
});

test('what comes after stop is not handed over', async (t) => {
	let finish;
	const deaf = () => new Promise((resolve) => (finish = () => resolve(answer('c1', [upsert(1)])())));
	const world = makeWorld(t, {}, [deaf]);
	await world.start();
	const stopped = world.poller.stop();
	finish();
	await stopped;
	assert.deepEqual([world.delivered, world.polls, world.poller.cursor], [[], [], null]);
});

test('stop before the request is made', async (t) => {
	const world = makeWorld(t, { headers: () => void world.poller.stop() }, [answer('c1')]);
	await world.start();
	assert.equal(world.requests.length, 0);
});

test('stop leaves no timers, so that a program can end', async () => {
	const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
	const before = timers();
	await new Promise((resolve) => {
		const poller = new Poller({
			url: 'http://server.test/poll',
			feeds: { tasks: () => {} },
			fetch: async () => answer('c1')(),
			onState: (state) => state === 'waiting' && poller?.cursor && resolve(poller.stop()),
		});
		poller.start();
	});
	assert.equal(timers(), before);
});

test('start while it runs changes nothing; start after stop waits for a handler', async (t) => {
	let finish;
	const onChanges = () => new Promise((resolve) => (finish = resolve));
	const world = makeWorld(t, { onChanges }, [answer('c1', [upsert(1)]), answer('c1')]);
	await world.start();
	await world.start();
	assert.equal(world.requests.length, 1);
	world.poller.stop();
	await world.start();
	assert.equal(world.requests.length, 1);
	finish();
	await settle();
	assert.deepEqual(world.cursors(), [null, 'c1']);
});

test('a signal stops it', async (t) => {
	const controller = new AbortController();
	const world = makeWorld(t, { signal: controller.signal }, [answer('c1')]);
	await world.start();
	controller.abort();
	assert.equal(world.poller.state, 'stopped');
	await world.start();
	await world.pass(1e6);
	assert.equal(world.requests.length, 1);
});

test('pollNow polls at once, and once more if a poll is under way', async (t) => {
	let finish;
	const slow = () => new Promise((resolve) => (finish = () => resolve(answer('c1')())));
	const world = makeWorld(t, {}, [answer('c1'), answer('c1'), slow, answer('c1')]);
	await world.start();
	await world.pass(1000);
	world.poller.pollNow();
	await settle();
	assert.deepEqual(world.times(), [0, 1000]);
	await world.pass(4000);
	world.poller.pollNow();
	finish();
	await settle();
	await world.pass(3999);
	assert.deepEqual(world.times(), [0, 1000, 5000, 5000]);
});

test('pollNow does not come before a Retry-After is over', async (t) => {
	const world = makeWorld(t, {}, [status(429, { 'Retry-After': '30' }), answer('c1')]);
	await world.start();
	world.poller.pollNow();
	await world.pass(29999);
	assert.equal(world.requests.length, 1);
	await world.pass(1);
	assert.equal(world.requests.length, 2);
});

test('a hidden page does not poll, and does at once when it is seen again', async (t) => {
	const page = makeDocument(t);
	const world = makeWorld(t, {}, [answer('c1')]);
	await world.start();
	page.hide(true);
	assert.equal(world.poller.state, 'paused');
	await world.pass(1e6);
	assert.equal(world.requests.length, 1);
	page.hide(false);
	await settle();
	page.hide(true);
	await world.pass(1000);
	page.hide(false);
	await settle();
	assert.deepEqual(world.times(), [0, 1e6, 1e6 + 1000]);
	assert.deepEqual(world.states, ['waiting', ...Array(3).fill(['polling', 'waiting', 'paused']).flat()].slice(0, -1));
});

test('a page that is hidden when it starts waits, and pages of an answer wait, too', async (t) => {
	const page = makeDocument(t);
	const world = makeWorld(t, {}, [() => (page.hide(true), answer('c1', [upsert(1)], { has_more: true })()), answer('c2')]);
	page.hidden = true;
	await world.start();
	assert.equal(world.requests.length, 0);
	page.hide(false);
	await settle();
	assert.equal(world.requests.length, 1);
	page.hide(false);
	await settle();
	assert.equal(world.requests.length, 2);
});

test('a page that is seen again does not come before a Retry-After is over', async (t) => {
	const page = makeDocument(t);
	const world = makeWorld(t, {}, [status(429, { 'Retry-After': '30' }), answer('c1')]);
	await world.start();
	page.hide(true);
	page.hide(false);
	await world.pass(29999);
	assert.equal(world.requests.length, 1);
	await world.pass(1);
	assert.equal(world.requests.length, 2);
});

test('pauseHidden: false polls on', async (t) => {
	const page = makeDocument(t);
	const world = makeWorld(t, { pauseHidden: false }, [answer('c1')]);
	await world.start();
	page.hide(true);
	await world.pass(4000);
	assert.deepEqual(world.times(), [0, 4000]);
});

test('back online, it polls at once', async (t) => {
	const events = new EventTarget();
	globalThis.addEventListener = events.addEventListener.bind(events);
	t.after(() => delete globalThis.addEventListener);
	const world = makeWorld(t, {}, [broken, answer('c1')]);
	world.random = 1;
	await world.start();
	events.dispatchEvent(new Event('online'));
	await settle();
	assert.deepEqual(world.times(), [0, 0]);
});

// ---- what it tells ----

test('onPoll tells what a poll was like', async (t) => {
	const world = makeWorld(t, {}, [answer('c1', [upsert(1)], { headers: { ETag: 'W/"1"' }, timestamp: 'ä' })]);
	await world.start();
	const bytes = Buffer.byteLength(await answer('c1', [upsert(1)], { timestamp: 'ä' })().text());
	assert.deepEqual(world.polls, [
		{ status: 200, changes: 1, bytes, duration: 0, etag: 'W/"1"', more: false, error: null, wait: 4000, interval: 4000 },
	]);
	assert.equal(world.poller.nextPoll, START + 4000);
	assert.equal(world.poller.cursor, 'c1');
});

test('an error in a callback that looks on does not end the loop', async (t) => {
	t.mock.method(console, 'error', () => {});
	const world = makeWorld(t, { onPoll: () => assert.fail('no') }, [answer('c1')]);
	await world.start();
	await world.pass(4000);
	assert.equal(world.requests.length, 2);
	assert.equal(console.error.mock.callCount(), 2);
});

test('nor does one in a callback that is asynchronous', async (t) => {
	t.mock.method(console, 'error', () => {});
	const fails = async () => assert.fail('no');
	const world = makeWorld(t, { onPoll: fails, onState: fails, onError: fails }, [answer('c1'), status(500)]);
	world.random = 0.5;
	await world.start();
	await world.pass(20_000);
	assert.ok(world.requests.length > 2);
	assert.ok(console.error.mock.callCount() >= 3);
});

test('wrong options are refused at once', () => {
	const make = (options) => () => new Poller({ url: 'http://server.test/poll', feeds: { a: () => {} }, ...options });
	assert.throws(make({ feeds: [] }), /at least one feed/);
	assert.throws(make({ feeds: undefined }), /at least one feed/);
	assert.throws(make({ feeds: ['a'] }), /onChanges/);
	assert.throws(make({ feeds: { a: 1 } }), /handlers/);
	assert.throws(make({ url: '/poll' }), /Invalid URL/);
	assert.throws(make({ interval: 0 }), RangeError);
	assert.throws(make({ interval: '5 s' }), RangeError);
	assert.throws(make({ minInterval: 6000 }), RangeError);
	assert.throws(make({ maxInterval: 4000 }), RangeError);
	assert.throws(make({ timeout: Infinity }), RangeError);
	for (const wait of [-1, 26, 0.5, '20', true]) assert.throws(make({ wait }), RangeError);
	assert.throws(make({ wait: 25, timeout: 2 ** 31 - 1 }), /timeout/);
	make({ wait: 25 })();
	make({ interval: 200 })();
	make({ interval: 600000 })();
});

// ---- copies ----

test('a mirror applies changes in their order', () => {
	const mirror = new Mirror();
	mirror.apply([upsert(1, { title: 'a' }), upsert(2), { ...upsert(1, { title: 'b' }), version: 5 }, gone(2), gone(3)]);
	assert.deepEqual([...mirror], [['{"id":1}', { id: 1, title: 'b' }]]);
	assert.equal(mirror.row({ id: 1 }).title, 'b');
	mirror.apply([{ op: 'truncate', key: null, data: null, version: 6 }, upsert(4)]);
	assert.deepEqual([...mirror.values()], [{ id: 4 }]);
	assert.throws(() => mirror.apply([{ op: 'merge' }]), /unknown operation merge/);
});

test('the last change counts, also if a page comes again', () => {
	const page = [{ ...upsert(1), version: 7 }, { ...gone(2), version: 8 }];
	const map = applyChanges(applyChanges(new Map(), page), [{ ...upsert(1, { now: true }), version: 6 }]);
	assert.deepEqual([...map], [[keyOf({ id: 1 }), { id: 1, now: true }]]);
});
