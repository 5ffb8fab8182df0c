import { packageMissing } from '../errors.js';

/**
 * An optional package. Its own types stay out of surprisal's, which have to work without it.
 *
 * @throws ERR_PACKAGE_MISSING with the command that installs it
 */
export async function importPackage<T>(name: string, purpose: string): Promise<T> {
  try {
    return (await import(name)) as T;
  } catch (cause) {
    const { code, message } = cause as { code?: unknown; message?: unknown };
    const missing = code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND';
    throw packageMissing(
      missing
        ? `reading ${purpose} takes the package ${name}, which is not installed; run: npm install ${name}`
        : `reading ${purpose} takes the package ${name}, which can't be loaded (${String(message)}); run: npm install ${name}`,
      cause,
    );
  }
}
