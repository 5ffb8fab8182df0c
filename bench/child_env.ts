/** The environment for programs that are not Node: a sanitizer that is preloaded into Node has no business in them. */
export function childEnv(): NodeJS.ProcessEnv {
  const env = { ...process.env };
  delete env['LD_PRELOAD'];
  return env;
}
