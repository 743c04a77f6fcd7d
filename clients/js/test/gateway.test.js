// The poller, and another client, against the real gateway and database

import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { PostgrestClient } from '@supabase/postgrest-js';
import { Mirror, Poller } from '../poll.js';
import { Database, Gateway, until } from './lib.js';

let database;
let gateway;

before(async () => {
	database = await Database.create('gateway');
	gateway = await Gateway.start(database.name);
});

after(async () => {
	await gateway?.stop();
	await database?.drop();
});

beforeEach(() => database.sql('DELETE FROM tasks'));

const save = (task) => gateway.call('save_task', task);
const insert = (count) => database.sql(`INSERT INTO tasks (title) SELECT 'task ' || i FROM generate_series(1, ${count}) i`);

/** A mirror of tasks that polls often, until the test ends */
function follow(t, options = {}) {
	const mirror = new Mirror();
	mirror.polls = [];
	mirror.errors = [];
	mirror.resets = 0;
	mirror.poller = new Poller({
		url: `${gateway.base}/poll`,
		feeds: { tasks: (changes) => mirror.apply(changes) },
		interval: 50,
		maxInterval: 200,
		onReset: () => (mirror.resets++, mirror.clear()),
		onPoll: (poll) => mirror.polls.push(poll),
		onError: (error) => mirror.errors.push(error),
		...options,
	}).start();
	t.after(() => mirror.poller.stop());
	return mirror;
}

async function assertEqualToTable(mirror) {
	const rows = JSON.parse(await database.sql("SELECT coalesce(json_agg(t ORDER BY id), '[]') FROM tasks t"));
	assert.deepEqual([...mirror.values()].sort((a, b) => a.id - b.id), rows);
}

test('a full sync of several pages, then every change', async (t) => {
	await insert(250);
	const mirror = follow(t);
	await until('all rows are there', () => mirror.size === 250);
	assert.deepEqual(
		mirror.polls.slice(0, 3).map(({ status, changes, more, wait }) => [status, changes, more, wait === 0]),
		[[200, 100, true, true], [200, 100, true, true], [200, 50, false, false]],
	);

	const { id } = await save({ title: 'new' });
	await save({ id, done: true });
	await until('the new row is there', () => mirror.row({ id })?.done);
	await gateway.call('delete_task', { id });
	await until('it is gone', () => !mirror.row({ id }));
	await database.sql('TRUNCATE tasks');
	await until('the mirror is empty', () => mirror.size === 0);
	assert.deepEqual(mirror.errors, []);
	assert.equal(mirror.resets, 0);
});

test('nothing new is a 304, without a body', async (t) => {
	await save({ title: 'one' });
	const mirror = follow(t);
	await until('there are 304s', () => mirror.polls.filter(({ status }) => status === 304).length >= 3);
	const last = mirror.polls.at(-1);
	assert.deepEqual([last.status, last.bytes, last.changes, last.error], [304, 0, 0, null]);
	assert.match(last.etag, /^W\/"/);
});

for (const padding of ['', `?padding=${'x'.repeat(4000)}`])
	test(`long polls: a change arrives well before the wait is over, by ${padding ? 'POST' : 'GET'}`, async (t) => {
		const mirror = follow(t, { url: `${gateway.base}/poll${padding}`, wait: 20, interval: 30000, maxInterval: 30000 });
		await until('it waits', () => gateway.waiting().then((count) => count === 1));
		for (const title of ['one', 'two']) {
			const polls = mirror.polls.length;
			await new Promise((resolve) => setTimeout(resolve, 300));
			assert.equal(mirror.polls.length, polls);
			const { id } = await save({ title });
			await until('the new row is there', () => mirror.row({ id }));
			await until('it waits again', () => gateway.waiting().then((count) => count === 1));
		}
		assert.ok(mirror.polls.at(-1).duration < 10000);
		mirror.poller.pollNow();
		await until('it has polled', () => mirror.polls.at(-1).changes === 0);
		await until('it waits again', () => gateway.waiting().then((count) => count === 1));
		await mirror.poller.stop();
		await until('nobody waits', () => gateway.waiting().then((count) => count === 0));
		assert.deepEqual(mirror.errors, []);
	});

test('long polls: when the wait is over, the next one follows', async (t) => {
	await save({ title: 'one' });
	const mirror = follow(t, { wait: 1, interval: 30000, maxInterval: 30000 });
	await until('there are 304s', () => mirror.polls.filter(({ status }) => status === 304).length >= 2);
	const last = mirror.polls.at(-1);
	assert.deepEqual([last.wait, last.duration >= 900 && last.duration < 5000], [0, true]);
});

test('mirror and table are equal while others write', async (t) => {
	await insert(100);
	const mirror = follow(t, { maxRows: 7 });
	for (let i = 0; i < 20; i++) {
		await database.sql(`BEGIN; DELETE FROM tasks WHERE id % 20 = ${i};
			UPDATE tasks SET done = NOT done WHERE id % 7 = ${i % 7};
			INSERT INTO tasks (title) SELECT 'more' FROM generate_series(1, 5); COMMIT`);
	}
	const { id } = await save({ title: 'last' });
	await until('the last row is there', () => mirror.row({ id }) && !mirror.polls.at(-1).more);
	await assertEqualToTable(mirror);
});

test('it goes on from a cursor that was saved', async (t) => {
	await insert(3);
	let saved = null;
	const store = { load: () => saved, save: async (cursor) => void (saved = cursor) };
	const first = follow(t, { store });
	await until('there is a cursor', () => saved !== null);
	await first.poller.stop();
	const { id } = await save({ title: 'meanwhile' });
	const second = follow(t, { store });
	await until('the row is there', () => second.row({ id }));
	assert.equal(second.size, 1);
});

test('an expired cursor: the copy is dropped and made anew', async (t) => {
	await insert(150);
	const mirror = follow(t);
	await until('all rows are there', () => mirror.size === 150);
	await database.sql("BEGIN; SELECT poll.untrack('tasks'); DELETE FROM tasks WHERE id % 2 = 0; SELECT poll.track('tasks'); COMMIT");
	await until('it has started again', () => mirror.resets === 1 && mirror.size === 75);
	await assertEqualToTable(mirror);
	const { id } = await save({ title: 'new' });
	await until('it follows', () => mirror.row({ id }));
	assert.deepEqual(mirror.errors, []);
});

test('too many requests: it waits as long as it was told, and goes on', async (t) => {
	await database.sql("SELECT poll.set_rate_policy('poll', quota => 1, per => '1 second', algorithm => 'gcra')");
	t.after(() => database.sql("SELECT poll.drop_rate_policy('poll')"));
	const mirror = follow(t);
	await until('it was refused', () => mirror.errors.length > 0);
	assert.deepEqual([mirror.errors[0].status, mirror.errors[0].fatal, mirror.errors[0].retryAfter], [429, false, 1000]);
	const refused = mirror.polls.find(({ status }) => status === 429);
	assert.ok(refused.wait >= 1000 && refused.wait <= 1100);
	const { id } = await save({ title: 'new' });
	await until('it goes on', () => mirror.row({ id }));
});

test('the gateway goes away and comes back', async (t) => {
	const mirror = follow(t);
	await until('it polls', () => mirror.polls.length > 2);
	await gateway.stop();
	await until('it sees that', () => mirror.errors.length > 1);
	assert.deepEqual([mirror.errors[0].status, mirror.errors[0].fatal], [0, false]);
	gateway = await Gateway.start(database.name, gateway.port);
	const { id } = await save({ title: 'new' });
	await until('it goes on', () => mirror.row({ id }));
});

test('the database goes away and comes back: 503', async (t) => {
	const mirror = follow(t);
	await until('it polls', () => mirror.polls.length > 2);
	t.after(() => database.allowConnections(true));
	await database.allowConnections(false);
	await until('it sees that', () => mirror.errors.some(({ status }) => status === 503));
	await database.allowConnections(true);
	await until('it goes on', () => mirror.polls.at(-1).error === null);
});

test('a feed that is not there stops it', async (t) => {
	const mirror = follow(t, { feeds: { nothing: () => {} } });
	await until('it has stopped', () => mirror.poller.state === 'stopped');
	assert.deepEqual([mirror.errors[0].status, mirror.errors[0].code, mirror.errors[0].fatal], [404, 'PT404', true]);
});

test('a cursor of other feeds stops it', async (t) => {
	const mirror = follow(t, { store: { load: () => 'nonsense', save: () => {} } });
	await until('it has stopped', () => mirror.poller.state === 'stopped');
	assert.deepEqual([mirror.errors[0].status, mirror.errors[0].code], [400, 'PT400']);
});

test('several feeds in one request, one part of each, by GET and by POST', async (t) => {
	await database.sql(`CREATE TABLE notes (id int PRIMARY KEY, room_id int, body text);
		INSERT INTO notes VALUES (1, 7, 'here'), (2, 8, 'elsewhere');
		SELECT poll.track('notes', scope => '{room_id}'); GRANT SELECT ON notes TO demo_web`);
	await insert(2);
	for (const path of ['/poll', `/poll?padding=${'x'.repeat(4000)}`, '/rpc/poll']) {
		const seen = {};
		const mirror = follow(t, {
			url: gateway.base + path,
			feeds: ['tasks', 'notes'],
			scope: { room_id: 7 },
			onChanges: ({ tasks, notes }) => Object.assign(seen, { tasks: tasks.length, notes: notes.map(({ key }) => key.id) }),
		});
		await until('both were delivered', () => mirror.polls.length > 1);
		assert.deepEqual(seen, { tasks: 2, notes: [1] });
		await mirror.poller.stop();
	}
});

test('postgrest-js', async () => {
	const postgrest = new PostgrestClient(gateway.base);
	const { data: task } = await postgrest.rpc('save_task', { title: 'by PostgREST' });
	assert.equal(task.title, 'by PostgREST');

	for (const feeds of [['tasks'], 'tasks']) {
		const { data, error, status } = await postgrest.rpc('poll', { feeds });
		assert.deepEqual([error, status, data.changes.tasks.length], [null, 200, 1]);
	}
	const { data } = await postgrest.rpc('poll', { feeds: ['tasks'] }, { get: true });
	assert.equal(data.changes.tasks[0].data.id, task.id);

	const bad = await postgrest.rpc('save_task', { title: '' });
	assert.deepEqual([bad.status, bad.error.code], [400, 'PT400']);
	const nonsense = await postgrest.rpc('poll', { feeds: ['tasks'], cursor: 'nonsense' });
	assert.deepEqual([nonsense.status, nonsense.error.code], [400, 'PT400']);
	const { cursor } = data;
	await database.sql("SELECT poll.untrack('tasks')");
	await database.sql("SELECT poll.track('tasks')");
	const expired = await postgrest.rpc('poll', { feeds: ['tasks'], cursor });
	assert.deepEqual([expired.status, expired.error.code], [410, 'PT410']);
});
