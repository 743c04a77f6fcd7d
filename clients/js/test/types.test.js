// The declarations, by the compiler of TypeScript

import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as client from 'poll-ext-client';
import ts from 'typescript';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

test('test/types.ts compiles', () => {
	const options = ['--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext', '--lib', 'es2022,dom,dom.iterable'];
	const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
	try {
		execFileSync(process.execPath, [tsc, ...options, path('types.ts')], { encoding: 'utf8' });
	} catch (error) {
		assert.fail(error.stdout);
	}
});

test('what is declared is there, and the other way round', () => {
	const program = ts.createProgram([path('../poll.d.ts')], {});
	const checker = program.getTypeChecker();
	const module = checker.getSymbolAtLocation(program.getSourceFile(path('../poll.d.ts')));
	const values = checker.getExportsOfModule(module).filter(({ flags }) => flags & ts.SymbolFlags.Value);
	assert.deepEqual(values.map(({ name }) => name).sort(), Object.keys(client).sort());
});
