interface Vega {
  readonly parse: (spec: object) => object;
  readonly View: new (
    runtime: object,
    options: { renderer: 'none' },
  ) => {
    toSVG(): Promise<string>;
    finalize(): void;
  };
}

interface VegaLite {
  readonly compile: (spec: object) => { readonly spec: object };
}

// The packages' own declarations want the DOM's types, which a program for Node does not have. The compiler does not
// follow a name that is no literal, and what is used of the packages is declared above.
const load = async (name: string): Promise<unknown> => import(name);

/** A Vega-Lite specification, drawn as an SVG document. */
export async function renderSvg(spec: object): Promise<string> {
  const { parse, View } = (await load('vega')) as Vega;
  const { compile } = (await load('vega-lite')) as VegaLite;
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}
