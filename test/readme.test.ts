// Every ```ts block of README.md and docs/ is type-checked against the public types and run. In a block,
//
//   expression; // -> value        const name = expression; // -> value
//
// asserts: numbers with a point agree to half a unit of the last digit shown, everything else exactly.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Tensor } from 'surprisal';
import ts from 'typescript';

const root = process.cwd();
const folder = join(root, 'dist-dev', 'readme');
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.md'))
    .sort()
    .map((file) => join('docs', file)),
];

interface Block {
  readonly page: string;
  /** Of its first line in the page, from 1. */
  readonly line: number;
  readonly code: string;
}

function blocks(page: string, language: string): Block[] {
  const text = readFileSync(join(root, page), 'utf8');
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'))].map((match) => ({
    page,
    line: text.slice(0, match.index).split('\n').length + 1,
    code: match[1]!,
  }));
}

/** The block as a file of its own, whose lines have the numbers that they have in the page. */
function writeSource({ page, line, code }: Block): string {
  const file = join(folder, `${basename(page, '.md')}_${line}.mts`);
  writeFileSync(file, '\n'.repeat(line - 1) + code);
  return file;
}

const expected = /^\/\/ -> (.+)$/;

/** Turns each `// -> value` into a call of `check`. Returns the module and how many there are. */
function addChecks(file: string): { module: string; count: number } {
  const text = readFileSync(file, 'utf8');
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true);
  const edits: { start: number; end: number; text: string }[] = [];
  const visit = (node: ts.Node): void => {
    ts.forEachChild(node, visit);
    const comment = ts
      .getTrailingCommentRanges(text, node.end)
      ?.map(({ pos, end }) => expected.exec(text.slice(pos, end)))
      .find((match) => match !== null);
    if (!comment) return;
    const line = source.getLineAndCharacterOfPosition(node.end).line + 1;
    const call = (actual: string) => `check(${line}, ${JSON.stringify(comment[1])}, ${actual});`;
    if (ts.isExpressionStatement(node)) {
      edits.push({ start: node.getStart(), end: node.end, text: call(node.expression.getText()) });
    } else if (ts.isVariableStatement(node)) {
      const [declaration] = node.declarationList.declarations;
      edits.push({ start: node.end, end: node.end, text: call(declaration!.name.getText()) });
    }
  };
  visit(source);
  const asserted = text.split('\n').filter((line) => line.includes('// ->')).length;
  assert.equal(edits.length, asserted, `${file}: a '// ->' does not stand behind a statement`);
  let rewritten = text;
  for (const { start, end, text: replacement } of edits.sort((a, b) => b.start - a.start)) {
    rewritten = rewritten.slice(0, start) + replacement + rewritten.slice(end);
  }
  const { outputText } = ts.transpileModule(rewritten, {
    compilerOptions: {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
    },
  });
  return {
    module: `const check = globalThis[Symbol.for('surprisal.readme')];\n${outputText}`,
    count: edits.length,
  };
}

/** Half a unit of the last digit that a numeral shows; 0 where it shows an integer. */
function tolerance(numeral: string): number {
  const [, decimals = '', exponent = '0'] = /^[^.e]*\.?(\d*)(?:e(.+))?$/.exec(numeral)!;
  return decimals === '' && exponent === '0' ? 0 : 0.5 * 10 ** (Number(exponent) - decimals.length);
}

const plain = (value: unknown): unknown => {
  if (value instanceof Tensor) return value.toArray();
  return ArrayBuffer.isView(value) ? Array.from(value as Uint8Array) : value;
};

function compare(actual: unknown, literal: ts.Expression, where: string): void {
  const text = literal.getText();
  if (ts.isArrayLiteralExpression(literal)) {
    assert.ok(Array.isArray(actual), `${where}: expected ${text}, got ${String(actual)}`);
    assert.equal(
      actual.length,
      literal.elements.length,
      `${where}: expected ${text}, got ${actual.join(', ')}`,
    );
    literal.elements.forEach((element, i) => compare(actual[i], element, `${where} [${i}]`));
  } else if (typeof actual === 'number' && Number.isFinite(actual)) {
    const numeral = text.replace('-', '');
    // 1e-9 of it more, since the digits shown are decimal and the number is not.
    const allowed = tolerance(numeral) * (1 + 1e-9);
    assert.ok(Math.abs(actual - Number(text)) <= allowed, `${where}: expected ${text}, got ${actual}`);
  } else {
    const shown = ts.isStringLiteral(literal) ? literal.text : text;
    assert.equal(String(actual), shown, where);
    assert.equal(typeof actual === 'string', ts.isStringLiteral(literal), `${where}: expected ${text}`);
  }
}

/** Compares a value with its text in the page. */
function checkValue(page: string, line: number, text: string, actual: unknown): void {
  const source = ts.createSourceFile('value.ts', `(${text});`, ts.ScriptTarget.ES2022, true);
  const [statement] = source.statements;
  assert.ok(
    statement && ts.isExpressionStatement(statement) && ts.isParenthesizedExpression(statement.expression),
  );
  compare(plain(actual), statement.expression.expression, `${page}:${line}`);
}

function typeErrors(files: readonly string[]): string[] {
  const config = ts.getParsedCommandLineOfConfigFile(
    join(root, 'tsconfig.dev.json'),
    { noEmit: true, incremental: false },
    {
      ...ts.sys,
      onUnRecoverableConfigFileDiagnostic: (diagnostic) =>
        assert.fail(ts.flattenDiagnosticMessageText(diagnostic.messageText, '\n')),
    },
  );
  const options = { ...config!.options };
  delete options.tsBuildInfoFile;
  const program = ts.createProgram(files, options);
  return ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => {
    const where = file
      ? `${basename(file.fileName)}:${ts.getLineAndCharacterOfPosition(file, start!).line + 1}`
      : '';
    return `${where} ${ts.flattenDiagnosticMessageText(messageText, '\n')}`;
  });
}

describe('README.md and docs/', () => {
  const examples = pages.flatMap((page) => blocks(page, 'ts'));

  before(() => {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
  });

  it('have an example of every loss', () => {
    const all = examples.map(({ code }) => code).join('\n');
    const losses = [
      'CrossEntropyLoss LabelSmoothingCrossEntropy SoftTargetCrossEntropy NLLLoss KLDivLoss JsdCrossEntropy',
      'BinaryCrossEntropy AsymmetricLossMultiLabel AsymmetricLossSingleLabel LensedCrossEntropy',
    ].flatMap((names) => names.split(' '));
    assert.deepEqual(
      losses.filter((name) => !all.includes(`new ${name}(`)),
      [],
    );
  });

  it('have examples that the public types accept', () => {
    assert.deepEqual(typeErrors(examples.map(writeSource)), []);
  });

  for (const block of examples) {
    it(`have an example that runs and gives what it says: ${block.page}:${block.line}`, async () => {
      const file = writeSource(block);
      const { module, count } = addChecks(file);
      let checked = 0;
      Object.assign(globalThis, {
        [Symbol.for('surprisal.readme')]: (line: number, text: string, actual: unknown) => {
          checkValue(block.page, line, text, actual);
          checked++;
        },
      });
      const compiled = file.replace(/\.mts$/, '.mjs');
      writeFileSync(compiled, module);
      await import(pathToFileURL(compiled).href);
      assert.equal(checked, count, 'some values of the example were not reached');
    });
  }

  it('give the two commands that continuous integration runs', () => {
    const commands = blocks('README.md', 'sh').map(({ code }) => code.trim());
    assert.deepEqual(commands, ['npm install && npm run demo', 'npm install && npm test']);
    const script = readFileSync(join(root, '.ci', 'run'), 'utf8');
    for (const command of commands) assert.ok(script.includes(command), `.ci/run does not run: ${command}`);
  });

  it('link to files that are there', () => {
    const broken = pages.flatMap((page) =>
      [...readFileSync(join(root, page), 'utf8').matchAll(/\]\((?!https?:)([^)#]+)/g)]
        .map((match) => match[1]!)
        .filter((link) => !existsSync(resolve(root, dirname(page), link)))
        .map((link) => `${page}: ${link}`),
    );
    assert.deepEqual(broken, []);
  });
});
