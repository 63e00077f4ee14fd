package phase

import (
	"headgate/proxy/expr"
	"headgate/proxy/expr/body"
	"headgate/proxy/vars"
)

// PostArg implements vars.Source: what a form field or a path into the body holds, in text.
func (x *Exchange) PostArg(name string, dst []byte) ([]byte, bool) {
	return inText(x.postArg(name, dst))
}

func (x *Exchange) postArg(name string, dst []byte) ([]byte, expr.Kind) {
	q := &x.Request
	if !x.readable() {
		return dst, expr.None
	}
	if name == "" || name[0] != '_' {
		return body.Arg(q.ContentType, q.Body, name, dst)
	}
	value, ok := body.FormArg(q.ContentType, q.Body, name[1:], dst)
	return value, textKind(ok)
}

func (x *Exchange) graphQL(id vars.ID, dst []byte) ([]byte, expr.Kind) {
	what := body.OperationName
	switch id {
	case vars.GraphQLOperation:
		what = body.OperationType
	case vars.GraphQLRootFields:
		what = body.OperationFields
	}
	q := &x.Request
	if q.Incoming != nil && string(q.Method) == "POST" && !x.TryHold(min(body.MaxGraphQL, x.settings.MaxHeldBody)) {
		return dst, expr.None
	}
	return body.GraphQL(q.Method, q.ContentType, q.Query, q.Body, what, dst)
}

// readable makes the body one in which variables are looked for, and says whether it is.
func (x *Exchange) readable() bool {
	limit := body.MaxBody
	if m := x.settings.MaxPostArgs; m > 0 {
		limit = min(limit, m)
	}
	if x.Request.Incoming != nil {
		limit = min(limit, x.settings.MaxHeldBody)
	}
	return x.TryHold(limit)
}

// inText is a typed value as templates see it. A List is always built in the caller's buffer, so that it may be rewritten there.
func inText(value []byte, kind expr.Kind) ([]byte, bool) {
	if kind == expr.List {
		value = expr.Joined(value)
	}
	return value, kind != expr.None
}

func textKind(ok bool) expr.Kind {
	if ok {
		return expr.Text
	}
	return expr.None
}

// CompilePredicate compiles a vars expression over the variables of an exchange. Its errors are those of expr.Compile.
func CompilePredicate(raw any) (Predicate, error) {
	e, err := expr.Compile(raw, getter)
	if err != nil {
		return nil, err
	}
	return predicate{e}, nil
}

// getter resolves a variable for expressions, which tell the types of what is in a body apart.
func getter(name string) expr.Getter[*Exchange] {
	v, ok := vars.Parse(name)
	if !ok {
		return nil
	}
	if arg := v.PostArg(); arg != "" {
		return func(dst []byte, x *Exchange) ([]byte, expr.Kind) { return x.postArg(arg, dst) }
	}
	if v.ID() == vars.GraphQLRootFields {
		return func(dst []byte, x *Exchange) ([]byte, expr.Kind) { return x.graphQL(vars.GraphQLRootFields, dst) }
	}
	return func(dst []byte, x *Exchange) ([]byte, expr.Kind) {
		value, ok := v.Value(dst, x)
		return value, textKind(ok)
	}
}

type predicate struct{ e *expr.Expr[*Exchange] }

func (p predicate) True(x *Exchange) bool { return p.e.Eval(x, &x.Scratch) }
