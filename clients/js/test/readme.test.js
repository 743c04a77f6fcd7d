// What README.md shows, as it is written there, against the gateway

import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Database, Gateway, browserOptions, until } from './lib.js';

const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
const examples = (language) => [...readme.matchAll(new RegExp('```' + language + '\n(.*?)```', 'gs'))].map(([, code]) => code);

let database;
let gateway;

before(async () => {
	database = await Database.create('readme');
	gateway = await Gateway.start(database.name);
	await database.sql(`CREATE TABLE notes (id int PRIMARY KEY, room_id int, body text);
		INSERT INTO notes VALUES (1, 7, 'here');
		SELECT poll.track('notes', scope => '{room_id}'); GRANT SELECT ON notes TO demo_web`);
});

after(async () => {
	await gateway?.stop();
	await database?.drop();
});

const scripts = examples('js');
const kept = new Map();
globalThis.localStorage = {
	getItem: (name) => kept.get(name) ?? null,
	setItem: (name, value) => kept.set(name, value),
	removeItem: (name) => kept.delete(name),
};

for (const [i, code] of scripts.entries())
	test(`script ${i + 1} of ${scripts.length}`, async (t) => {
		const file = new URL(`readme-${i}.tmp.js`, import.meta.url);
		t.mock.method(console, 'error');
		t.mock.method(console, 'log', () => {});
		await writeFile(file, code.replace('http://127.0.0.1:8080', gateway.base) + '\nexport { poller };\n');
		t.after(() => rm(file));
		const { poller } = await import(file);
		await until('it has polled', () => poller.cursor !== null && poller.state === 'waiting');
		await poller.stop();
		assert.equal(console.error.mock.callCount(), 0);
		if (code.includes('console.log')) assert.ok(console.log.mock.callCount() > 0);
		if (code.includes('localStorage')) assert.equal(kept.get('tasks cursor'), poller.cursor);
	});

test('the page', async (t) => {
	const browser = await chromium.launch(browserOptions);
	t.after(() => browser.close());
	const page = await browser.newPage();
	await page.route('**/page', (route) => route.fulfill({ contentType: 'text/html', body: examples('html')[0] }));
	await page.goto(`${gateway.base}/page`);
	await page.locator('li', { hasText: 'Open this page twice' }).waitFor();
	await gateway.call('save_task', { title: 'a new one' });
	await page.locator('li', { hasText: 'a new one' }).waitFor();
});
