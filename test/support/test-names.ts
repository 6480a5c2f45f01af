import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';

const ROOT = join(import.meta.dirname, '..', '..');
const known = new Map<string, ReadonlySet<string>>();

/**
 * The names of the tests of a file (`test/…/x.test.ts`), as they stand in its source: `describe › test`, with `%s` and `${…}`
 * where a name is made of values. Tests that do not run (`skip`, `todo`, `fails`) have none.
 */
export function testNames(file: string): ReadonlySet<string> {
  let names = known.get(file);
  if (names === undefined) {
    names = namesIn(ts.createSourceFile(file, readFileSync(join(ROOT, file), 'utf8'), ts.ScriptTarget.Latest, true));
    known.set(file, names);
  }
  return names;
}

/** A table cell's way to name tests: `` `test/…/x.test.ts › describe › test` ``, as often as it likes. */
export function testsNamedIn(text: string): { readonly file: string; readonly name: string }[] {
  return [...text.matchAll(/`(test\/[^`]*?\.test\.ts) › ((?:[^`]|\\`)*)`/g)].map(([, file = '', name = '']) => ({
    file,
    name: name.replaceAll('\\|', '|'),
  }));
}

const RUNNERS = new Set(['test', 'it']);
const NOT_RUN = new Set(['skip', 'todo', 'fails', 'skipIf', 'runIf']);

function namesIn(source: ts.SourceFile): ReadonlySet<string> {
  const names = new Set<string>();
  /** Names of what a file itself makes of `test`: `const onBoth = test.each([…])`. */
  const aliases = new Set(RUNNERS);
  const visit = (node: ts.Node, path: readonly string[]): void => {
    if (ts.isVariableDeclaration(node) && node.initializer !== undefined && ts.isIdentifier(node.name)) {
      const chain = chainOf(node.initializer);
      if (chain?.includes('each') && aliases.has(chain[0] as string)) aliases.add(node.name.text);
    }
    if (ts.isCallExpression(node)) {
      const chain = chainOf(node.expression);
      const title = titleOf(node.arguments[0]);
      const isSuite = chain?.[0] === 'describe';
      if (chain !== undefined && title !== undefined && (isSuite || aliases.has(chain[0] as string))) {
        if (chain.some((part) => NOT_RUN.has(part))) return;
        const here = [...path, title];
        if (!isSuite) names.add(here.join(' › '));
        return ts.forEachChild(node, (child) => visit(child, here));
      }
    }
    ts.forEachChild(node, (child) => visit(child, path));
  };
  visit(source, []);
  return names;
}

/** `test.concurrent.each([…])` is `['test', 'concurrent', 'each']`. */
function chainOf(node: ts.Expression): readonly string[] | undefined {
  if (ts.isIdentifier(node)) return [node.text];
  if (ts.isCallExpression(node)) return chainOf(node.expression);
  if (!ts.isPropertyAccessExpression(node)) return undefined;
  const before = chainOf(node.expression);
  return before === undefined ? undefined : [...before, node.name.text];
}

function titleOf(node: ts.Expression | undefined): string | undefined {
  if (node === undefined) return undefined;
  if (ts.isStringLiteralLike(node)) return node.text;
  if (!ts.isTemplateExpression(node)) return undefined;
  return node.getText().slice(1, -1);
}
