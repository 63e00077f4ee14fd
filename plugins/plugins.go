package plugins

import "headgate/proxy/phase"

func List() []phase.Kind { return nil }
