//! The attributes of `levada-sdk`. Use them from there.
//!
//! Each reads the name of the function it stands on and nothing else, so it needs no parser for Rust
//! and this crate no dependency: handlers build quickly, and without a registry.

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// Makes a function the interceptor of this component.
///
/// `#[interceptor]` stands on a function for one event, `fn(&Event<'_>) -> Verdict`; it may also
/// return a `Patch`, nothing, or a `Result` of these with a `Failure` of the whole batch.
/// `#[interceptor(batch)]` stands on a function for a batch,
/// `fn(&Batch<'_>, &mut Verdicts) -> Result<(), Failure>`.
///
/// The function itself stays as it is and can be called in tests. A component has one interceptor.
#[proc_macro_attribute]
pub fn interceptor(arguments: TokenStream, item: TokenStream) -> TokenStream {
    exported(&INTERCEPTOR, arguments, item)
}

/// Makes a function the sink of this component.
///
/// `#[sink]` stands on a function for one event, `fn(&Event<'_>) -> Outcome`; it may also return
/// nothing, which is done, or a `Result` of these with a `Failure`. `#[sink(batch)]` stands on a
/// function for a batch, `fn(&Batch<'_>, &mut Outcomes) -> Result<(), Failure>`.
///
/// The function itself stays as it is and can be called in tests. A component has one sink.
#[proc_macro_attribute]
pub fn sink(arguments: TokenStream, item: TokenStream) -> TokenStream {
    exported(&SINK, arguments, item)
}

/// An attribute with two shapes: the macros of `levada_sdk` that make its exports, and what it says
/// of other arguments.
struct Attribute {
    each: &'static str,
    batch: &'static str,
    arguments: &'static str,
}

const INTERCEPTOR: Attribute = Attribute {
    each: "__export_each",
    batch: "__export_batch",
    arguments: "expected `#[interceptor]` or `#[interceptor(batch)]`",
};

const SINK: Attribute = Attribute {
    each: "__export_sink_each",
    batch: "__export_sink_batch",
    arguments: "expected `#[sink]` or `#[sink(batch)]`",
};

fn exported(attribute: &Attribute, arguments: TokenStream, item: TokenStream) -> TokenStream {
    let shape = shape(attribute, arguments);
    let export = shape.and_then(|shape| Ok(export(shape, function(&item)?)));
    let mut out = item;
    match export {
        Ok(export) => out.extend(export),
        Err(mistake) => out.extend(mistake.report()),
    }
    out
}

/// Makes a function the timer of this component, beside its interceptor.
///
/// `#[timer]` stands on a function `fn() -> Result<Vec<NewEvent>, Failure>`. The events go on behind
/// the handler, and are committed with what the function wrote to its state. How often it is called
/// is the operator's: `every` in the configuration. A component has one timer.
#[proc_macro_attribute]
pub fn timer(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let plain = "expected `#[timer]`: how often it is called is in the configuration";
    exported_as("__export_timer", plain, arguments, item)
}

/// Makes a function the source of this component.
///
/// `#[source]` stands on a function `fn(Option<&[u8]>) -> Result<Polled, Failure>`: it is given the
/// cursor that was committed last, or nothing the first time, and gives the events that come after
/// it with the next cursor. A component has one source.
#[proc_macro_attribute]
pub fn source(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let plain = "expected `#[source]`: how long it waits between two polls is in what it gives";
    exported_as("__export_source", plain, arguments, item)
}

/// An attribute with one shape; `plain` is what it says of arguments.
fn exported_as(
    shape: &str,
    plain: &'static str,
    arguments: TokenStream,
    item: TokenStream,
) -> TokenStream {
    let export = match arguments.into_iter().next() {
        None => function(&item).map(|name| export(shape, name)),
        Some(other) => Err(Mistake {
            at: other.span(),
            text: plain,
        }),
    };
    let mut out = item;
    match export {
        Ok(export) => out.extend(export),
        Err(mistake) => out.extend(mistake.report()),
    }
    out
}

/// What the compiler is to say, and where.
struct Mistake {
    at: Span,
    text: &'static str,
}

/// The macro of `levada_sdk` that makes the export, by the attribute's argument.
fn shape(attribute: &Attribute, arguments: TokenStream) -> Result<&'static str, Mistake> {
    let mut arguments = arguments.into_iter();
    match (arguments.next(), arguments.next()) {
        (None, _) => Ok(attribute.each),
        (Some(TokenTree::Ident(word)), None) if word.to_string() == "batch" => Ok(attribute.batch),
        (Some(other), _) => Err(Mistake {
            at: other.span(),
            text: attribute.arguments,
        }),
    }
}

/// The name of a function: what follows the first `fn` outside of any brackets.
fn function(item: &TokenStream) -> Result<Ident, Mistake> {
    let mut tokens = item.clone().into_iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) if word.to_string() == "async" => {
                return Err(Mistake {
                    at: word.span(),
                    text: "a handler is not async: what it calls waits for it",
                });
            }
            TokenTree::Ident(word) if word.to_string() == "fn" => {
                if let Some(TokenTree::Ident(name)) = tokens.next() {
                    return match tokens.next() {
                        Some(TokenTree::Punct(mark)) if mark.as_char() == '<' => {
                            generic(&mut tokens, name)
                        }
                        _ => Ok(name),
                    };
                }
            }
            TokenTree::Ident(_)
            | TokenTree::Group(_)
            | TokenTree::Punct(_)
            | TokenTree::Literal(_) => {}
        }
    }
    Err(Mistake {
        at: Span::call_site(),
        text: "the attribute stands on a function",
    })
}

/// Lets lifetimes pass; type parameters cannot be chosen by a host.
fn generic(rest: &mut impl Iterator<Item = TokenTree>, name: Ident) -> Result<Ident, Mistake> {
    match rest.next() {
        Some(TokenTree::Punct(mark)) if mark.as_char() == '\'' => Ok(name),
        _ => Err(Mistake {
            at: name.span(),
            text: "a handler has no type parameters",
        }),
    }
}

/// `::levada_sdk::SHAPE!(NAME);`
fn export(shape: &str, name: Ident) -> TokenStream {
    let mut tokens = path(shape);
    tokens.push(TokenTree::Punct(Punct::new('!', Spacing::Alone)));
    let inside = TokenStream::from(TokenTree::Ident(name));
    tokens.push(TokenTree::Group(Group::new(Delimiter::Parenthesis, inside)));
    tokens.push(TokenTree::Punct(Punct::new(';', Spacing::Alone)));
    tokens.into_iter().collect()
}

/// `::levada_sdk::NAME`
fn path(name: &str) -> Vec<TokenTree> {
    let mut tokens = Vec::new();
    for word in ["levada_sdk", name] {
        tokens.push(TokenTree::Punct(Punct::new(':', Spacing::Joint)));
        tokens.push(TokenTree::Punct(Punct::new(':', Spacing::Alone)));
        tokens.push(TokenTree::Ident(Ident::new(word, Span::call_site())));
    }
    tokens
}

impl Mistake {
    /// `compile_error!("...");` where the mistake is.
    fn report(&self) -> TokenStream {
        let text = TokenStream::from(TokenTree::Literal(Literal::string(self.text)));
        let tokens = [
            TokenTree::Ident(Ident::new("compile_error", self.at)),
            TokenTree::Punct(Punct::new('!', Spacing::Alone)),
            TokenTree::Group(Group::new(Delimiter::Parenthesis, text)),
            TokenTree::Punct(Punct::new(';', Spacing::Alone)),
        ];
        tokens
            .into_iter()
            .map(|mut token| {
                token.set_span(self.at);
                token
            })
            .collect()
    }
}
